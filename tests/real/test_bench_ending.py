"""A benchmark that is told to end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WITHIN_S = 60.0


def programs(folder: Path) -> Iterator[str]:
    """The command lines that name the folder."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            yield command


@asynccontextmanager
async def publishing(folder: Path, *through: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A benchmark whose nginx runs, with its files below `folder`; `through` is the command that starts it."""
    child = await asyncio.create_subprocess_exec(
        *(*through, sys.executable, "-m", "bench", "publish"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},  # noqa: TID251 - for a program of this machine
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            while not any("nginx" in program for program in programs(folder)):
                assert child.returncode is None
                await asyncio.sleep(0.05)
            yield child
    finally:
        if child.returncode is None:
            # Killed it would leave its nginx.
            child.terminate()
            await child.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ends(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever it had started has ended with it and its folder is gone, also when it is told so twice."""
    async with publishing(tmp_path) as child:
        child.send_signal(number)
        await asyncio.sleep(0.01)
        if child.returncode is None:
            child.send_signal(number)
        # The second may come when all has ended.
        assert await child.wait() in (130, 1, -number)
    assert list(programs(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


async def test_what_it_is_to_ignore_it_ignores(tmp_path: Path) -> None:
    """One that is started by `nohup` goes on when its terminal closes."""
    async with publishing(tmp_path, "nohup") as child:
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
        assert ignored >> (signal.SIGHUP - 1) & 1
        child.terminate()
        await child.wait()
    assert list(programs(tmp_path)) == []
