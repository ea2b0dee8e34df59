"""The settings in force of the module proxy's role, where the disk lets nothing be removed."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy import team
from mooring.goproxy.tallies import Tallies
from mooring.goproxy.team import Team
from mooring.goproxy.telemetry import Telemetry
from mooring.server.files import make_folders
from mooring.server.goproxy_role import InForce, Switch, keep
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


async def test_a_mistake_of_ours_is_said_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of must not be the end of looking at the settings."""
    tries = [KeyError("GOPROXY"), Team(upstream="off", sumdb="off")]

    def read(_file: Path) -> Team:
        found = tries.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(team, "read", read)
    switch = Switch()
    with short_home() as home:
        make_folders(home)
        installation = Installation(home, Listen(), editor=tmp_path)
        async with asyncio.timeout(30), Tasks("role") as tasks:
            tasks.forever("settings", keep(installation, switch, Telemetry(Tallies())))
            while "KeyError: 'GOPROXY'" not in switch.problem:
                await asyncio.sleep(0.01)
            # As an editor saves it.
            home.modules_settings.write_text("")
            while switch.goproxy is None:
                await asyncio.sleep(0.01)
            assert switch.problem == ""
