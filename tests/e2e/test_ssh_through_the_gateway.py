"""ssh, exec and rsync to a workspace of a whole Mooring: CLI, nginx, server, keeper, sshd."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mooring import Mooring, installation


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """A Mooring with a running workspace `demo`."""
    with installation() as it:
        it.cli("workspace", "create", "demo", "--wait")
        yield it


def home_of(mooring: Mooring) -> Path:
    """The folder of the workspace on disk."""
    document = mooring.json("workspace", "show", "demo")
    assert isinstance(document, dict)
    return mooring.home / "workspaces" / document["id"] / "home"


def test_a_command_over_ssh(mooring: Mooring) -> None:
    """It runs in the workspace's folder, not in the home of the password file, and its status is ours."""
    done = mooring.cli("ssh", "demo", "--", "pwd; cat > note; exit 7", stdin="from outside\n", check=False)
    assert (done.returncode, done.stdout) == (7, f"{home_of(mooring)}\n"), done
    assert (home_of(mooring) / "note").read_text() == "from outside\n"


def test_rsync_over_ssh(mooring: Mooring, tmp_path: Path) -> None:
    """What `ssh-config` prints is all that OpenSSH's friends need."""
    config = tmp_path / "ssh_config"
    config.write_text(mooring.cli("workspace", "ssh-config").stdout)
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_bytes(bytes(range(256)) * 4096)
    command = ["rsync", "-r", "-e", shlex.join(["ssh", "-F", str(config)]), f"{tmp_path}/tree", "mooring.demo:"]
    subprocess.run(command, check=True, timeout=120, env=mooring.environment())
    assert (home_of(mooring) / "tree/below/file").read_bytes() == bytes(range(256)) * 4096


def test_a_command_through_exec(mooring: Mooring) -> None:
    """Bytes go to the command and back through nginx, and its status is ours."""
    text = "x" * 1_000_000 + "\n"
    done = mooring.cli("workspace", "exec", "demo", "--", "sh", "-c", "cat; exit 9", stdin=text, check=False)
    assert (done.returncode, done.stdout == text) == (9, True), done.stderr
