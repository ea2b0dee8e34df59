"""The settings in force of the module proxy's role, where the disk lets nothing be removed."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mooring.goproxy.tallies import Tallies
from mooring.goproxy.team import Team
from mooring.goproxy.telemetry import Telemetry
from mooring.server.files import make_folders
from mooring.server.goproxy_role import InForce, Switch
from mooring.settings import Home, Installation, Listen
from support.modules import short_home


async def taken_away(home: Home, in_force: InForce) -> None:
    """Take settings up, and leave where what was made for the gateway cannot be removed."""
    async with in_force:
        await in_force.take_up(Team(upstream="off", sumdb="off"))
        assert len(asyncio.all_tasks()) > 1
        # A folder is as hard to unlink as a file of a disk that became read-only.
        home.modules_policy.unlink()
        home.modules_policy.mkdir()


async def test_settings_are_looked_at_again_on_a_disk_that_keeps_every_file(tmp_path: Path) -> None:
    """What is wrong with them is told, also where the gateway's file cannot be taken back."""
    with short_home() as home:
        make_folders(home)
        home.modules_policy.mkdir()
        switch = Switch()
        async with AsyncExitStack() as ending:
            ending.enter_context(pytest.raises(IsADirectoryError))
            in_force = InForce(Installation(home, Listen(), editor=tmp_path), switch, Telemetry(Tallies()))
            await ending.enter_async_context(in_force)
            in_force.stay("line 3 is wrong")
            assert switch.problem == "the module proxy does not work: line 3 is wrong"


async def test_the_parts_end_on_a_disk_that_keeps_every_file(tmp_path: Path) -> None:
    """What cannot be taken back from the gateway is said, and no task of the proxy outlives the block."""
    with short_home() as home:
        make_folders(home)
        in_force = InForce(Installation(home, Listen(), editor=tmp_path), Switch(), Telemetry(Tallies()))
        with pytest.raises(IsADirectoryError, match=home.modules_policy.name):
            await taken_away(home, in_force)
        assert asyncio.all_tasks() == {asyncio.current_task()}
