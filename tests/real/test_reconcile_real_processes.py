"""The reconciler on real processes: an editor, the server, or both are killed at any moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mooring.control.clock import SystemClock
from mooring.model.template import Template
from mooring.model.workspace import Phase, Workspace
from mooring.workspaces.sql import SqlEventLog, SqlStore
from support import databases, runtimes
from support.runtime_process import ProcessHarness
from support.runtimes import Behaviour, Harness
from support.workspaces import ADA, Stage, StageProbe, stage

ANSWERS_WITHIN_S = 5.0


class RealProbe(StageProbe):
    """Asks the editor itself, where the gateway would."""

    def __init__(self, it: Stage, harness: Harness) -> None:
        super().__init__(it.table)
        self._it, self._harness = it, harness

    async def answered(self, workspace: Workspace, template: Template) -> bool:
        seen = self._it.reconciler.observation(workspace.id)
        published = await super().answered(workspace, template)
        return published and seen is not None and "alive" in await self._harness.ask(seen, "/healthz")


@asynccontextmanager
async def server(harness: Harness, url: str, behaviour: Behaviour = "healthy") -> AsyncIterator[Stage]:
    """A server on the database and the processes that are there; leaving it is a kill."""
    async with harness.engine() as engine, databases.opened(url) as database:
        events = SqlEventLog(database, SystemClock())
        light = harness.template(behaviour)
        light = light.model_copy(update={"editor": light.editor.model_copy(update={"start_timeout_s": 5})})
        async with stage(runtime=engine, store=SqlStore(database), events=events, light=light) as it:
            # The stage's own probe would believe what the runtime says.
            it.reconciler._parts.probe.answered = RealProbe(it, harness).answered  # type: ignore[method-assign]
            yield it


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """Real processes."""
    async with runtimes.open_harness("process")(tmp_path) as opened:
        yield opened


async def test_killed_editors_and_servers(harness: Harness, tmp_path: Path) -> None:
    """A killed editor answers again within seconds, a killed server finds its workspaces, and a stop ends them."""
    url = f"sqlite:///{tmp_path}/m.db"
    async with server(harness, url) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        began = it.clock.monotonic()
        await harness.crash(it.runtime, made)
        await it.until(made.id, Phase.starting)
        await it.until(made.id, Phase.running)
        assert it.clock.monotonic() - began < ANSWERS_WITHIN_S
        assert any(text.startswith("the editor ended and was started again") for text in await it.texts(made.id))
        pid = await answer(it, harness, made, "/pid")
    async with server(harness, url) as it:
        await it.until(made.id, lambda w: it.route(w.id) is not None)
        assert (await it.store.get(made.id)).phase is Phase.running
        assert await answer(it, harness, made, "/pid") == pid
        await it.service.stop(ADA, made.id)
        await it.until(made.id, Phase.stopped)
        assert harness.alive(made) == 0
        await it.service.delete(ADA, made.id)
        async with asyncio.timeout(30):
            while (await it.store.page(owner=None, after=None, limit=1)).items:
                await asyncio.sleep(0.02)


async def test_everything_is_killed_at_once(harness: Harness, tmp_path: Path) -> None:
    """The server is gone, then the editor: the next server starts it again and says so."""
    url = f"sqlite:///{tmp_path}/m.db"
    async with server(harness, url) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await harness.crash(it.runtime, made)
    async with server(harness, url) as it:
        await it.until(made.id, Phase.running)
        async with asyncio.timeout(30):
            while not await answer(it, harness, made, "/healthz"):
                await asyncio.sleep(0.02)
        await it.reconciler.suspend()
        assert harness.alive(made) == 0


async def test_an_editor_that_is_given_up_was_not_started_again(harness: Harness, tmp_path: Path) -> None:
    """Of the deaths of an editor only those before the last are told as followed by a start."""
    async with server(harness, f"sqlite:///{tmp_path}/m.db", "crashing") as it:
        made = await it.create()
        failed = await it.until(made.id, Phase.failed)
        assert failed.reason.startswith("the editor ended 5 times in 10 minutes")
        again = [text for text in await it.texts(made.id) if "was started again" in text]
        assert again
        assert not [text for text in again if "5 times in 10 minutes" in text]


async def test_nothing_is_left_of_an_editor_that_is_given_up(harness: Harness, tmp_path: Path) -> None:
    """Its cgroups go, although nobody stops it: Mooring's own could not be removed at a stop else."""
    assert isinstance(harness, ProcessHarness)
    async with server(harness, f"sqlite:///{tmp_path}/m.db", "crashing") as it:
        made = await it.create()
        await it.until(made.id, Phase.failed)
        folders = harness.state(made)["folders"]
        assert folders
        async with asyncio.timeout(30):
            while any(Path(folder).exists() for folder in folders):
                await asyncio.sleep(0.02)
        assert (await it.store.get(made.id)).phase is Phase.failed


async def test_an_editor_that_hangs_at_its_start_fails(harness: Harness, tmp_path: Path) -> None:
    """After the start time-out it is failed with the last lines of its output, and none of its processes is left."""
    async with server(harness, f"sqlite:///{tmp_path}/m.db", "hanging") as it:
        made = await it.create()
        failed = await it.until(made.id, Phase.failed)
        first, *_, last = failed.reason.splitlines()
        assert (first, last) == ("the editor did not answer within 5 s", "the editor begins")
        async with asyncio.timeout(30):
            while harness.alive(made):
                await asyncio.sleep(0.02)


async def answer(it: Stage, harness: Harness, workspace: Workspace, path: str) -> str:
    """What its editor says, empty when it does not."""
    seen = it.reconciler.observation(workspace.id)
    return await harness.ask(seen, path) if seen is not None else ""
