"""`mooring workspace exec`: bytes, statuses, terminals and signals, through the real WebSocket."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.cli import Cli, command_line, runs, until
from support.local_exec import LocalRuntime, account
from support.pseudo_terminal import terminal

EXEC = ("workspace", "exec", "demo")


@pytest.fixture
async def cli() -> AsyncIterator[Cli]:
    """With a running workspace `demo` whose commands run on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-exec-"))
    folder.chmod(0o755)
    try:
        home = folder / "work"
        home.mkdir()
        shutil.chown(home, account())
        async with command_line(folder, runtime=LocalRuntime(home, account())) as it:
            await runs(it, "demo")
            yield it
    finally:
        shutil.rmtree(folder)


async def test_bytes_pass_unchanged(cli: Cli) -> None:
    """A large input of any bytes comes out as it went in."""
    data = os.urandom(5_000_000)
    done = await cli(*EXEC, "--", "cat", data=data)
    assert (done.status, done.raw == data, done.err) == (0, True, "")


async def test_output_errors_and_status_are_the_commands(cli: Cli) -> None:
    """Standard output and error stay apart, in a workspace's environment, and the exit status is the command's."""
    done = await cli(*EXEC, "--", "sh", "-c", 'echo "$QUOTED"; echo bad >&2; exit 42')
    assert (done.status, done.out, done.err) == (42, 'it\'s "one" $value\n', "bad\n")
    assert (await cli(*EXEC, "--", "sh", "-c", "kill -9 $$")).status == 137


async def test_input_from_a_file_and_output_to_one(cli: Cli, tmp_path: Path) -> None:
    """Descriptors that are regular files work like pipes."""
    (tmp_path / "in").write_bytes(b"from a file\n")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mooring", *EXEC, "--", "cat", stdin=source, stdout=target, env=cli.environment()
        )
        assert await process.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"from a file\n"


async def test_a_terminal_is_passed_through(cli: Cli) -> None:
    """With `--tty` every key goes to the command, sizes follow, and our terminal is afterwards as it was."""
    command = (sys.executable, "-m", "mooring", "workspace", "exec", "--tty", "demo")
    async with terminal(*command, environment=cli.environment()) as screen:
        before = screen.modes()
        screen.type("echo $TERM-$((6*7)); stty size\n")
        await screen.shows("xterm-42")
        await screen.shows("24 80")
        screen.resize(100, 30)
        screen.type("until stty size | grep '30 100'; do sleep 0.1; done; echo resized-$((6*7))\n")
        await screen.shows("resized-42")
        screen.type("sh -c 'echo sleeping-$((6*7)); exec sleep 60'\n")
        await screen.shows("sleeping-42")
        screen.type("\x03")
        screen.type("echo interrupted-$?\n")
        await screen.shows("interrupted-130")
        assert screen.modes() != before
        screen.type("exit 5\n")
        assert await screen.ends() == 5
        assert screen.modes() == before


async def test_a_terminal_without_a_size_is_one(cli: Cli) -> None:
    """A serial line has none, and one that is folded away loses it: the command starts, and goes on."""
    command = (sys.executable, "-m", "mooring", "workspace", "exec", "--tty", "demo")
    async with terminal(*command, environment=cli.environment(), columns=0, rows=0) as screen:
        screen.type("echo begun-$((6*7))\n")
        await screen.shows("begun-42")
        screen.resize(100, 30)
        screen.type("until stty size | grep '30 100'; do sleep 0.1; done; echo resized-$((6*7))\n")
        await screen.shows("resized-42")
        screen.resize(0, 0)
        screen.type("sleep 0.3; echo still-$((6*7)); exit 5\n")
        await screen.shows("still-42")
        assert await screen.ends() == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_terminal_is_restored_when_we_are_ended(cli: Cli, number: int) -> None:
    """A signal that ends `mooring` leaves no raw terminal behind."""
    command = (sys.executable, "-m", "mooring", *EXEC, "--tty", "--", "sh", "-c", "echo on; exec sleep 60")
    async with terminal(*command, environment=cli.environment()) as screen:
        before = screen.modes()
        await screen.shows("on")
        screen.process.send_signal(number)
        assert await screen.ends() == 128 + number
        assert screen.modes() == before


async def test_ctrl_c_ends_the_command_too(cli: Cli) -> None:
    """Without `--tty` an interrupt ends us quietly with 130, and the command in the workspace with us."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mooring",
        *EXEC,
        "--",
        "sh",
        "-c",
        "echo $$; exec sleep 60",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=cli.environment(),
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")
    await until(lambda: not _alive(pid))


async def test_a_reader_that_leaves_is_quiet(cli: Cli) -> None:
    """`… | head -1` ends everything without a complaint."""
    script = f"{sys.executable} -m mooring workspace exec demo -- yes | head -1"
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        script,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=cli.environment(),
    )
    assert await asyncio.wait_for(process.communicate(), 60) == (b"y\n", b"")


async def test_a_slow_reader_loses_nothing(cli: Cli) -> None:
    """While nobody reads our output the command waits; nothing is dropped or kept in memory."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mooring",
        *EXEC,
        "--",
        "head",
        "-c",
        "40000000",
        "/dev/zero",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=cli.environment(),
        limit=1024,
    )
    await asyncio.sleep(3)
    out, _ = await process.communicate()
    assert (process.returncode, len(out)) == (0, 40_000_000)


async def test_refusals_are_the_servers_words(cli: Cli) -> None:
    """A stopped workspace, another's, and a terminal where there is none are one line each."""
    await cli.good("workspace", "create", "idle", "--template", "light", "--no-start")
    stopped = await cli("workspace", "exec", "idle", "--", "true")
    assert (stopped.status, stopped.err) == (5, "mooring: the workspace is stopped: start it first\n")
    await cli.api.workspace("bob", "theirs")
    assert (await cli("workspace", "exec", "bob/theirs", "--", "true")).status == 7
    without = await cli(*EXEC, "--tty", "--", "true")
    assert (without.status, without.err) == (2, "mooring: --tty needs a terminal, and standard input is none\n")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
