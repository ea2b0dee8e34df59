"""ssh, git, rsync and exec to a workspace of a whole Mooring: CLI, nginx, server, keeper, sshd."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mooring import Mooring, free_port, installation
from support.waiting import until


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """A Mooring with a running workspace `demo`."""
    with installation() as it:
        it.cli("workspace", "create", "demo", "--wait")
        yield it


@pytest.fixture
def config(mooring: Mooring, tmp_path: Path) -> Iterator[Path]:
    """What `ssh-config` prints."""
    path = tmp_path / "ssh_config"
    path.write_text(mooring.cli("workspace", "ssh-config").stdout)
    yield path
    # ssh tells its ProxyCommand to end, and does not wait for it.
    until(lambda: not mooring.processes("ssh-proxy"))


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


def test_rsync_over_ssh(mooring: Mooring, config: Path, tmp_path: Path) -> None:
    """What `ssh-config` prints is all that OpenSSH's friends need."""
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_bytes(bytes(range(256)) * 4096)
    command = ["rsync", "-r", "-e", shlex.join(["ssh", "-F", str(config)]), f"{tmp_path}/tree", "mooring.demo:"]
    subprocess.run(command, check=True, timeout=120, env=mooring.environment())
    assert (home_of(mooring) / "tree/below/file").read_bytes() == bytes(range(256)) * 4096


def test_git_over_ssh(mooring: Mooring, config: Path, tmp_path: Path) -> None:
    """A repository in the workspace is cloned, and takes what is pushed."""
    mooring.cli("workspace", "exec", "demo", "--", "git", "init", "-q", "--bare", "repository.git")
    ssh = {"GIT_SSH_COMMAND": shlex.join(["ssh", "-F", str(config)]), "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=one", "-c", "user.email=one@example.test", *arguments]
        subprocess.run(command, check=True, timeout=120, env=mooring.environment() | ssh)

    clone = tmp_path / "clone"
    git("clone", "-q", "mooring.demo:repository.git", str(clone))
    (clone / "file").write_text("from outside\n")
    git("-C", str(clone), "add", "file")
    git("-C", str(clone), "commit", "-q", "-m", "one")
    git("-C", str(clone), "push", "-q", "origin", "HEAD:main")
    done = mooring.cli("workspace", "exec", "demo", "--", "git", "-C", "repository.git", "show", "main:file")
    assert done.stdout == "from outside\n"


def test_a_server_in_the_manner_of_remote_ssh(mooring: Mooring, config: Path) -> None:
    """A script starts one on a port of loopback, and SOCKS in the same connection leads there."""
    (home_of(mooring) / "served").write_text("by the workspace\n")
    socks, port = free_port(), free_port()
    script = f"""python3 -m http.server --bind 127.0.0.1 {port} >/dev/null 2>&1 &
        for try in $(seq 100); do
            curl -sf http://127.0.0.1:{port}/ >/dev/null && echo it listens && read answered && break
            sleep 0.1
        done
        kill $!; wait $! || true"""
    options = ["-F", str(config), "-T", "-D", str(socks), "-o", "ExitOnForwardFailure=yes"]
    with subprocess.Popen(
        ["ssh", *options, "mooring.demo", "sh", "-c", shlex.quote(script)],
        env=mooring.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as ssh:
        assert ssh.stdout
        assert ssh.stdout.readline() == "it listens\n"
        through = ["curl", "-sf", "--socks5-hostname", f"127.0.0.1:{socks}", f"http://127.0.0.1:{port}/served"]
        answer = subprocess.run(through, check=True, capture_output=True, text=True, timeout=60)
        assert answer.stdout == "by the workspace\n"
        ssh.communicate("answered\n", timeout=60)
    assert ssh.returncode == 0


def test_a_command_through_exec(mooring: Mooring) -> None:
    """Bytes go to the command and back through nginx, and its status is ours."""
    text = "x" * 1_000_000 + "\n"
    done = mooring.cli("workspace", "exec", "demo", "--", "sh", "-c", "cat; exit 9", stdin=text, check=False)
    assert (done.returncode, done.stdout == text) == (9, True), done.stderr
