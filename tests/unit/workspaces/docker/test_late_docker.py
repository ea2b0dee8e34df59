"""A machine without a Docker engine, and one that gets it later."""

import asyncio
import shlex
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from mooring.errors import NotFound, Unavailable
from mooring.model.routes import RouteState
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.settings import Home
from mooring.workspaces import output
from mooring.workspaces.docker import crashes
from mooring.workspaces.docker.late import LateDocker
from mooring.workspaces.memory import MemoryEventLog, MemoryStore
from mooring.workspaces.memory_runtime import MemoryRuntime, World
from mooring.workspaces.ports import Engine, Observation
from support.simulation import LoopClock, simulated
from support.workspaces import ADA, Stage, stage

BOXED = Template(name="light", runtime="docker", image="light", editor=Editor(listen="port"))


class KeepingRuntime(MemoryRuntime):
    """Keeps notes of what it runs as the docker runtime does."""

    def __init__(self, home: Home, world: World) -> None:
        super().__init__(world)
        self._home = home

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        if workspace.desired is Desired.running:
            crashes.save(self._home.workspace(workspace.id), crashes.Crashes(workspace.generation))
        return await super().apply(workspace, template)


class Machine:
    """Servers on it come and go; `socket` is there as long as its engine is installed, which it is not at first."""

    def __init__(self, folder: Path) -> None:
        # Each order of a simulated test begins with another one.
        folder = Path(tempfile.mkdtemp(dir=folder))
        self.home = Home(folder / "home")
        self.socket = folder / "docker.sock"
        self.world = World()
        self.log = MemoryEventLog(LoopClock())
        self.store = MemoryStore(self.log)

    async def _make(self) -> AbstractAsyncContextManager[Engine]:
        return self._runtime()

    @asynccontextmanager
    async def _runtime(self) -> AsyncIterator[Engine]:
        yield KeepingRuntime(self.home, self.world)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[Stage]:
        """A server, until it is killed."""
        clock = LoopClock()
        async with (
            LateDocker(self.home, self.socket, self._make, clock) as docker,
            stage(runtime=docker, store=self.store, events=self.log, clock=clock, light=BOXED) as it,
        ):
            yield it

    async def ran(self) -> Workspace:
        """A workspace that runs, on an engine that then goes away."""
        self.socket.touch()
        async with self.server() as it:
            made = await it.create()
            await it.until(made.id, Phase.running)
        self.socket.unlink()
        return made


async def is_gone(it: Stage, workspace_id: str) -> None:
    """Return once it does not exist any more."""
    async with asyncio.timeout(30):
        while True:
            try:
                await it.store.get(workspace_id)
            except NotFound:
                return
            await asyncio.sleep(0.01)


@simulated
async def test_nothing_is_made_for_an_engine_that_is_not_there(tmp_path: Path) -> None:
    """The refusal says what to do."""
    async with Machine(tmp_path).server() as it:
        with pytest.raises(Unavailable, match=r"there is no Docker engine at .*/docker.sock: start one") as refused:
            await it.create()
        assert refused.value.field == "template"
        assert (await it.store.page(owner=None, after=None, limit=9)).items == ()


@simulated
async def test_an_engine_that_comes_later_is_found(tmp_path: Path) -> None:
    """What ran there waits and says for what; it runs again within seconds, and new ones can be made."""
    machine = Machine(tmp_path)
    made = await machine.ran()
    async with machine.server() as it:
        waiting = await it.until(made.id, lambda w: "there is no Docker engine" in w.reason)
        assert (waiting.phase, waiting.desired) == (Phase.starting, Desired.running)
        route = it.route(made.id)
        assert route is not None
        assert route.state is RouteState.starting
        machine.socket.touch()
        began = it.clock.monotonic()
        await it.until(made.id, Phase.running)
        assert it.clock.monotonic() - began < 5
        await it.until((await it.create("two")).id, Phase.running)


@simulated
async def test_what_an_engine_is_asked_is_answered_without_one(tmp_path: Path) -> None:
    """Output is read from files; a command, its use and its ports are refused at once, with what to do."""
    machine = Machine(tmp_path)
    made = await machine.ran()
    folder = machine.home.workspace(made.id) / "log"
    output.Log(str(folder)).append(b"said\n")
    async with machine.server() as it:
        assert [data async for _, data in await it.service.logs(ADA, made.id)] == [b"said\n"]
        for refused in (
            it.service.exec(ADA, made.id, ["ls"], {}, tty=False),
            it.service.listener(made.id, 3000),
            it.runtime.usage(made.id),
        ):
            with pytest.raises(Unavailable, match="there is no Docker engine"):
                await refused


@simulated
async def test_what_never_ran_ends_without_an_engine(tmp_path: Path) -> None:
    """A workspace that was made and could not be started is stopped and deleted at once."""
    machine = Machine(tmp_path)
    machine.socket.touch()
    async with machine.server() as it:
        never, tried = await it.create("one", start=False), await it.create("two", start=False)
    machine.socket.unlink()
    async with machine.server() as it:
        await it.service.start(ADA, tried.id)
        await it.until(tried.id, lambda w: "there is no Docker engine" in w.reason)
        await it.service.stop(ADA, tried.id)
        await it.until(tried.id, Phase.stopped)
        for made in (never, tried):
            await it.service.delete(ADA, made.id)
            await is_gone(it, made.id)


@simulated
async def test_what_ran_is_deleted_by_the_engine_that_has_it(tmp_path: Path) -> None:
    """Its files are there: it waits for the engine, says so, and is gone once that is back."""
    machine = Machine(tmp_path)
    made = await machine.ran()
    async with machine.server() as it:
        await it.service.delete(ADA, made.id)
        async with asyncio.timeout(30):
            while not any("there is no Docker engine" in text for text in await it.texts(made.id)):
                await asyncio.sleep(0.01)
        assert made.id in machine.world.files
        machine.socket.touch()
        await is_gone(it, made.id)
        assert made.id not in machine.world.files


@simulated
async def test_what_an_engine_has_that_never_comes_back_can_be_given_up(tmp_path: Path) -> None:
    """What the workspace waits for names the command; after it the workspace is gone, and nothing of it is kept."""
    machine = Machine(tmp_path)
    made = await machine.ran()
    async with machine.server() as it:
        await it.service.delete(ADA, made.id)
        async with asyncio.timeout(30):
            while not (told := [text for text in await it.texts(made.id) if "; should it never come back, " in text]):
                await asyncio.sleep(0.01)
        command = told[0].partition("; should it never come back, ")[2].partition(" lets go")[0]
        subprocess.run(shlex.split(command), check=True)
        await is_gone(it, made.id)
        assert not machine.home.workspace(made.id).exists()
