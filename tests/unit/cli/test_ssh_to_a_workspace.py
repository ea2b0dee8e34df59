"""`mooring ssh`: OpenSSH's own programs against a real sshd that runs as the workspace's own user."""

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cli import Cli, Done, command_line, run, runs
from support.local_exec import LocalRuntime, account
from support.pseudo_terminal import terminal


@dataclass
class Workspace:
    """A running workspace, its folder, and a configuration of OpenSSH that `ssh-config` printed."""

    cli: Cli
    id: str
    home: Path
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    async def run(self, *command: str | Path, data: bytes = b"", **more: str) -> Done:
        """Run one of OpenSSH's clients in the person's folder."""
        return await run(*command, data=data, environment=self.cli.environment(**more))


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    """One that runs as the user of a real installation, in a folder with a blank in its name."""
    # The person's folder and the workspace's must be reached by another user than the one who runs the tests.
    folder = Path(tempfile.mkdtemp(prefix="mooring-ssh-"))
    folder.chmod(0o755)
    try:
        home = folder / "work space"
        home.mkdir()
        shutil.chown(home, account())
        async with command_line(folder, runtime=LocalRuntime(home, account())) as cli:
            found = Workspace(cli, await runs(cli, "demo"), home, folder)
            printed = await cli.good("workspace", "ssh-config", "demo")
            found.config.write_text(printed.out)
            yield found
    finally:
        shutil.rmtree(folder)


async def test_a_command_runs_in_the_workspace(workspace: Workspace) -> None:
    """`mooring ssh NAME -- command` has the workspace's home, environment and PATH, and ends with its status."""
    script = 'printf "%s\\n" "$HOME" "$PWD" "$QUOTED" "$PATH"; id -un; cat; echo oops >&2; exit 7'
    done = await workspace.cli("ssh", "demo", "--", script, data=b"typed")
    assert done.status == 7, done
    home = str(workspace.home)
    quoted = 'it\'s "one" $value'
    assert done.out == f"{home}\n{home}\n{quoted}\n{home}/bin:/usr/local/bin:/usr/bin:/bin\n{account()}\ntyped"
    assert "oops" in done.err


async def test_files_go_both_ways(workspace: Workspace, tmp_path: Path) -> None:
    """What scp (both protocols), sftp and rsync carry arrives unchanged, in the workspace's own folder."""
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(3_000_000))
    config = ["-F", str(workspace.config)]
    remote_shell = shlex.join(["ssh", *config])
    for command, data in (
        (["scp", "-q", *config, str(blob), "mooring.demo:one"], b""),
        (["scp", "-q", "-O", *config, str(blob), "mooring.demo:two"], b""),
        (["sftp", "-q", "-b", "-", *config, "mooring.demo"], f"put {blob} three\n".encode()),
        (["rsync", "-e", remote_shell, str(blob), "mooring.demo:four"], b""),
    ):
        done = await workspace.run(*command, data=data)
        assert done.status == 0, (command, done)
    for name in ("one", "two", "three", "four"):
        assert (workspace.home / name).read_bytes() == blob.read_bytes(), name
    done = await workspace.run("rsync", "-e", remote_shell, "mooring.demo:one", str(tmp_path / "back"))
    assert done.status == 0, done
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()


async def test_git_clones_over_ssh(workspace: Workspace, tmp_path: Path) -> None:
    """A repository in a workspace is cloned by git from outside."""
    script = "git init -q repo && cd repo && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first"
    assert (await workspace.cli("ssh", "demo", "--", script)).status == 0
    shell = shlex.join(["ssh", "-F", str(workspace.config)])
    done = await workspace.run(
        "git", "clone", "-q", "mooring.demo:repo", str(tmp_path / "clone"), GIT_SSH_COMMAND=shell
    )
    assert done.status == 0, done
    assert (await workspace.run("git", "-C", str(tmp_path / "clone"), "log", "--format=%s")).out == "first\n"


async def test_a_port_of_the_workspace_is_forwarded(workspace: Workspace) -> None:
    """Forwarding, which VS Code's Remote-SSH is made of, reaches what listens beside the workspace."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        command = ["ssh", "-F", str(workspace.config), "-W", f"127.0.0.1:{port}", "mooring.demo"]
        done = await workspace.run(*command, data=b"quiet")
    assert (done.status, done.out) == (0, "QUIET"), done


async def test_two_first_connections_at_once(workspace: Workspace) -> None:
    """Both get in, and later ones find the same host key: nobody is warned about a changed one."""
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(workspace.cli("ssh", "demo", "--", "echo in")) for _ in range(2)]
    later = await workspace.cli("ssh", "demo", "--", "echo in")
    assert [task.result().out for task in both] + [later.out] == ["in\n"] * 3, (both, later)


async def test_keys_are_ones_own(workspace: Workspace) -> None:
    """Key, folder and what sshd is made of can be read by their owner only; the token is in no argument list."""
    assert (await workspace.cli("ssh", "demo", "--", "true")).status == 0
    folder = workspace.folder / ".config" / "mooring" / "ssh"
    theirs = workspace.home / ".mooring" / "ssh"
    for path in (folder, folder / "identity" / "key", theirs, theirs / "host_key", theirs / "environment"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert workspace.cli.api.tokens["ada"] not in workspace.config.read_text()


async def test_a_terminal_is_given_in_any_case(workspace: Workspace) -> None:
    """`mooring ssh NAME` is an interactive shell in the workspace, also where sshd can give no terminal."""
    command = (sys.executable, "-m", "mooring", "ssh", "demo")
    async with terminal(*command, environment=workspace.cli.environment()) as screen:
        screen.type("stty size; echo $HOME; echo ready-$((6*7))\n")
        await screen.shows("24 80")
        await screen.shows(str(workspace.home))
        await screen.shows("ready-42")
        screen.type("exit 3\n")
        assert await screen.ends() == 3


async def test_a_stopped_workspace_says_how_to_start_it(workspace: Workspace) -> None:
    """A workspace that does not run is one line; the list of all skips it with a comment."""
    await workspace.cli.good("workspace", "create", "idle", "--template", "light", "--no-start")
    done = await workspace.cli("ssh", "idle")
    assert (done.status, done.out) == (5, "")
    assert done.err == "mooring: idle is stopped; start it: mooring workspace start idle --wait\n"
    printed = await workspace.cli.good("workspace", "ssh-config")
    assert "Host mooring.demo\n" in printed.out
    assert "# mooring.idle is stopped" in printed.out


async def test_a_proxy_that_may_not_enter_says_so(workspace: Workspace) -> None:
    """What the server refuses comes out of ssh as the server's own words."""
    done = await workspace.cli("ssh-proxy", workspace.id, MOORING_TOKEN=workspace.cli.api.tokens["eve"])
    assert (done.status, done.err) == (4, "mooring: no such workspace\n")
