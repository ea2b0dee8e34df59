"""Who runs the go command holds the clones, and only as long."""

import asyncio
from pathlib import Path

import pytest

from mooring.goproxy.gocommand import GoCommand


async def test_who_gave_up_waiting_holds_nothing(tmp_path: Path) -> None:
    """A request that ends while clones are being removed does not keep them for the rest of the process."""
    command = GoCommand(Path("go"), tmp_path, "/usr/bin:/bin")
    command.prepare()
    with command.clones.alone() as alone:
        assert alone
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), command.holding():
                pytest.fail("somebody else has them")
    async with asyncio.timeout(10):
        # By the end of the thread that waited it got them.
        await asyncio.get_running_loop().shutdown_default_executor()
        while not _free(command):
            await asyncio.sleep(0.01)


def test_where_nothing_is_left_nothing_is_locked(tmp_path: Path) -> None:
    """A sweep keeps no run waiting for a look at the store, and no module is a leftover by the name of its path."""
    command = GoCommand(Path("go"), tmp_path, "/usr/bin:/bin")
    command.prepare()
    kept = command.modcache / "cache/download/git.example.com/lib.git/x.zip/@v/v1.0.0.mod"
    left = kept.with_name("v1.0.0.zip")
    kept.parent.mkdir(parents=True)
    kept.touch()
    command.sweep()
    assert not (tmp_path / "lock").exists()
    left.touch()
    command.sweep()
    assert kept.exists()
    assert not left.exists()


def _free(command: GoCommand) -> bool:
    with command.clones.alone() as alone:
        return alone
