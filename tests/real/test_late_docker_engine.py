"""A real Docker engine that comes after Mooring: it is found, runs what waits, and removes what it kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from mooring.control.clock import SystemClock
from mooring.errors import Unavailable
from mooring.model.workspace import Phase
from mooring.workspaces.docker.late import LateDocker
from mooring.workspaces.memory import MemoryEventLog, MemoryStore
from mooring.workspaces.ports import Engine
from support.docker import Dockerd
from support.runtime_docker import DockerHarness, harness
from support.runtimes import WITHIN_S
from support.workspaces import ADA, Stage, stage


@asynccontextmanager
async def without(dockerd: Dockerd) -> AsyncIterator[None]:
    """The machine has no engine; it has one again afterwards."""
    await asyncio.to_thread(dockerd.stop)
    dockerd.socket.unlink(missing_ok=True)
    try:
        yield
    finally:
        if not dockerd.running:
            await asyncio.to_thread(dockerd.start)


class Servers:
    """One after the other, on one database."""

    def __init__(self, world: DockerHarness) -> None:
        self._world = world
        self._log = MemoryEventLog(SystemClock())
        self._store = MemoryStore(self._log)

    async def _make(self) -> AbstractAsyncContextManager[Engine]:
        return self._world.engine()

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Stage]:
        """One, until it is killed."""
        docker = LateDocker(self._world.home, self._world.dockerd.socket, self._make)
        template = self._world.template("healthy")
        async with docker, stage(runtime=docker, store=self._store, events=self._log, light=template) as it:
            yield it


async def test_an_engine_that_is_started_late_is_found(tmp_path: Path) -> None:
    """What ran is waited for and runs again, what is being deleted goes, and new workspaces are made again."""
    async with harness(tmp_path) as world:
        servers = Servers(world)
        async with servers.server() as it:
            kept, dropped = await it.create("kept"), await it.create("dropped")
            for made in (kept, dropped):
                await it.until(made.id, Phase.running)
        async with without(world.dockerd), servers.server() as it:
            await it.until(kept.id, lambda w: "there is no Docker engine" in w.reason)
            with pytest.raises(Unavailable, match="start one"):
                await it.create("refused")
            await it.service.delete(ADA, dropped.id)

            await asyncio.to_thread(world.dockerd.start)
            async with asyncio.timeout(WITHIN_S):
                await it.until(kept.id, Phase.running)
                while dropped.id in world.dockerd.cli("volume", "ls", "-q"):
                    await asyncio.sleep(0.1)
                new = await it.create("new")
                for made in (kept, new):
                    while not (seen := it.reconciler.observation(made.id)) or not await world.ask(seen, "/healthz"):
                        await asyncio.sleep(0.1)
