"""A benchmark that is told to end."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ends(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever it had started has ended with it and its folder is gone, also when it is told so twice."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "publish"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # noqa: TID251 - for a program of this machine
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            while not any("nginx" in program for program in programs(tmp_path)):
                assert child.returncode is None
                await asyncio.sleep(0.05)
            child.send_signal(number)
            await asyncio.sleep(0.01)
            if child.returncode is None:
                child.send_signal(number)
            # The second may come when all has ended.
            assert await child.wait() in (130, 1, -number)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert list(programs(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
