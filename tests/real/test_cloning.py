"""A public git repository is in a workspace at its first start, from a real server over HTTPS."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mooring.model.workspace import Workspace
from mooring.workspaces.processes.runtime import ProcessRuntime
from support.gitserver import GitServer
from support.runtime_process import ProcessHarness, harness
from support.runtimes import WITHIN_S, answered, stopped, workspace


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    """A home of its own."""
    async with harness(tmp_path) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """The repository `tool`, for everybody."""
    folder = tmp_path / "git"
    folder.mkdir()
    with GitServer(folder).serving() as served:
        served.public = True
        served.publish("tool", "v1.0.0", {"hello.txt": "hello"})
        yield served


def a_workspace(world: ProcessHarness, server: GitServer) -> Workspace:
    """One that clones `tool` and trusts its server."""
    authority = shutil.copy(server.certificate, world.editor.parent / "git.pem")
    Path(authority).chmod(0o644)
    address = f"https://127.0.0.1:{server.port}/team/tool.git"
    return workspace(repository=address, environment={"GIT_SSL_CAINFO": str(authority)})


async def cloned(runtime: ProcessRuntime, world: ProcessHarness, wanted: Workspace) -> Path:
    """The clone, once it is there."""
    await answered(await runtime.apply(wanted, world.template("healthy")))
    folder = world.home.workspace(wanted.id) / "home/tool"
    async with asyncio.timeout(WITHIN_S):
        while not folder.exists():
            await asyncio.sleep(0.05)
    return folder


async def test_the_repository_is_there_at_the_first_start(world: ProcessHarness, server: GitServer) -> None:
    """It is cloned with its history and its origin, and belongs to the workspace's user."""
    async with world.engine() as runtime:
        folder = await cloned(runtime, world, a_workspace(world, server))
        assert (folder / "hello.txt").read_text() == "hello"
        assert f"127.0.0.1:{server.port}/team/tool.git" in (folder / ".git/config").read_text()
        assert folder.stat().st_uid == world.home.workspace("workspace1").stat().st_uid
        assert not folder.with_name("tool.part").exists()


async def test_it_is_cloned_once(world: ProcessHarness, server: GitServer) -> None:
    """What a person removed stays removed, and what they changed stays theirs."""
    wanted = a_workspace(world, server)
    async with world.engine() as runtime:
        folder = await cloned(runtime, world, wanted)
        shutil.rmtree(folder)
        asked = server.asked.total()
        await runtime.apply(stopped(wanted), world.template("healthy"))
        again = replace(wanted, generation=2)
        await answered(await runtime.apply(again, world.template("healthy")))
        await runtime.apply(stopped(again), world.template("healthy"))
        assert not folder.exists()
        assert server.asked.total() == asked
