"""The reconciler on a runtime in memory, with each of its faults."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from mooring.errors import NotFound, Unavailable
from mooring.model.routes import RouteState
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, IdleRule, Limits, Phase, Workspace
from mooring.workspaces.memory import MemoryEventLog, MemoryStore
from mooring.workspaces.memory_runtime import (
    CrashingRuntime,
    LyingRuntime,
    MemoryRuntime,
    NeverRuntime,
    SlowRuntime,
)
from mooring.workspaces.ports import Observation
from mooring.workspaces.reconcile import HANGS
from mooring.workspaces.requests import Change
from support.simulation import LoopClock, simulated
from support.workspaces import ADA, LIGHT, StageTemplates
from support.workspaces import stage as any_stage

stage = partial(any_stage, clock=LoopClock())

QUICK = LIGHT.model_copy(update={"editor": Editor(command=("healthy",), start_timeout_s=1)})


@simulated
async def test_running_means_that_the_editor_answered() -> None:
    """A workspace is starting until its editor answered through the gateway, then running, with the time it took."""
    async with stage() as it:
        it.probe.silent = True
        made = await it.create()
        await it.until(made.id, Phase.starting)
        route = it.route(made.id)
        assert route is not None
        assert route.state is RouteState.starting
        it.probe.silent = False
        ran = await it.until(made.id, Phase.running)
        assert ran.reason == ""
        route = it.route(made.id)
        assert route is not None
        assert route.state is RouteState.serving
        texts = await it.texts(made.id)
        assert texts[:2] == ["created from light version 1", "starting"]
        assert texts[2].startswith("editor answered after ")


@simulated
async def test_stop_and_start_again() -> None:
    """A stopped workspace has a page that says so, and starts with the next generation."""
    async with stage() as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await it.service.stop(ADA, made.id, why="idle for 30 min")
        stopped = await it.until(made.id, Phase.stopped)
        assert stopped.reason == "idle for 30 min"
        route = it.route(made.id)
        assert route is not None
        assert (route.state, route.backends) == (RouteState.stopped, ())
        assert (await it.texts(made.id))[-1] == "stopped: idle for 30 min"
        await it.service.start(ADA, made.id)
        assert (await it.until(made.id, Phase.running)).generation == 2


@simulated
async def test_restart_is_a_new_generation() -> None:
    """A restart ends the old editor; the new one has to answer before it is running again."""
    async with stage() as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await it.service.restart(ADA, made.id)
        await it.until(made.id, lambda w: w.generation == 2 and w.phase is Phase.running)
        seen = it.reconciler.observation(made.id)
        assert seen is not None
        assert seen.generation == 2


@simulated
async def test_deleting_forgets_everything() -> None:
    """Files, routes and the row go; the name is free at once."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await it.service.delete(ADA, made.id)
        again = await it.create()
        await it.until(again.id, Phase.running)
        async with asyncio.timeout(10):
            while made.id in runtime.world.files:
                await asyncio.sleep(0.01)
        with pytest.raises(NotFound):
            await it.store.get(made.id)
        assert it.route(made.id) is None
        assert it.route(again.id) is not None


@simulated
async def test_an_editor_that_never_answers_fails_and_is_ended() -> None:
    """After the template's start time-out it is failed, with the last lines of its output, and nothing of it runs."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime, light=QUICK) as it:
        it.probe.silent = True
        made = await it.create()
        failed = await it.until(made.id, Phase.failed)
        assert "did not answer within 1 s" in failed.reason
        assert "started generation 1" in failed.reason
        async with asyncio.timeout(10):
            while await runtime.usage(made.id) is not None:
                await asyncio.sleep(0.01)
        it.probe.silent = False
        await it.service.start(ADA, made.id)
        assert (await it.until(made.id, Phase.running)).reason == ""


@simulated
async def test_a_gateway_that_is_away_is_no_fault_of_the_editor() -> None:
    """While the gateway does not answer, the start time-out does not run; once it does, the workspace runs."""
    async with stage(light=QUICK) as it:
        it.probe.gateway_is_away = True
        made = await it.create()
        await asyncio.sleep(1.5)
        assert (await it.store.get(made.id)).phase is Phase.starting
        it.probe.gateway_is_away = False
        await it.until(made.id, Phase.running)


@simulated
async def test_a_lying_runtime_never_makes_a_workspace_run() -> None:
    """A runtime that only says it started something ends in failed."""
    async with stage(runtime=LyingRuntime(), light=QUICK) as it:
        it.probe.silent = True
        made = await it.create()
        failed = await it.until(made.id, Phase.failed)
        assert "did not answer" in failed.reason


@simulated
async def test_an_editor_that_crashes_too_often_fails_with_its_last_words() -> None:
    """What the runtime gives up on is failed, and says why; a new start is a new chance."""
    async with stage(runtime=CrashingRuntime()) as it:
        it.probe.silent = True
        made = await it.create()
        failed = await it.until(made.id, Phase.failed)
        assert failed.reason == "boom"
        assert (await it.texts(made.id))[-1] == "boom"
        await it.service.start(ADA, made.id)
        failed = await it.until(made.id, lambda w: w.generation == 2 and w.phase is Phase.failed)


@simulated
async def test_what_a_runtime_gave_up_is_cleared_away() -> None:
    """It keeps what the workspace was made of until it is told to stop it; the workspace stays failed, once told."""
    runtime = CrashingRuntime()
    async with stage(runtime=runtime) as it:
        it.probe.silent = True
        made = await it.create()
        await it.until(made.id, Phase.failed)
        await it.until(made.id, lambda w: runtime.world.seen[w.id].phase is Phase.stopped)
        await it.reconciler.suspend()
        assert (await it.store.get(made.id)).phase is Phase.failed
        assert (await it.texts(made.id)).count("boom") == 1


class LeavingRuntime(CrashingRuntime):
    """Goes away in the middle of clearing up what it gave up, for as many calls as it is told."""

    away = 10**6

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        if workspace.desired is Desired.stopped and self.away:
            self.away -= 1
            self.world.put(Observation(workspace.id, workspace.generation, Phase.stopping))
            raise Unavailable("the runtime does not answer")
        return await super().apply(workspace, template)


@simulated
async def test_what_a_runtime_gave_up_is_cleared_away_by_a_stop_too() -> None:
    """Its engine comes back while Mooring ends: nobody would see to it later."""
    runtime = LeavingRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.failed)
        await it.until(made.id, lambda w: runtime.world.seen[w.id].phase is Phase.stopping)
        runtime.away = 2
        await it.reconciler.suspend()
        assert runtime.world.seen[made.id].phase is Phase.stopped
        assert (await it.store.get(made.id)).phase is Phase.failed


@simulated
async def test_a_crash_is_told_and_probed_anew() -> None:
    """After a crash the workspace is starting until the new editor answered."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        it.probe.silent = True
        runtime.crash(made.id, "segmentation fault")
        await it.until(made.id, Phase.starting)
        it.probe.silent = False
        await it.until(made.id, Phase.running)
        assert "the editor ended and was started again: segmentation fault" in await it.texts(made.id)


@simulated
async def test_what_vanished_is_started_again() -> None:
    """A workspace that should run and does not, after a reboot for example, is started again."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        for times in (1, 2):
            runtime.vanish(made.id)
            async with asyncio.timeout(10):
                while (await it.texts(made.id)).count("starting again: it did not run any more") != times:
                    await asyncio.sleep(0.01)
            await it.until(made.id, Phase.running)


@simulated
async def test_a_new_server_adopts_what_runs() -> None:
    """After a kill of the server running workspaces stay running, are served at once, and nothing is started."""
    runtime = MemoryRuntime()
    log = MemoryEventLog(LoopClock())
    store = MemoryStore(log)
    async with stage(runtime=runtime, store=store, events=log) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        before = await it.store.get(made.id)
        texts = await it.texts(made.id)
    async with stage(runtime=runtime, store=store, events=log) as it:
        async with asyncio.timeout(10):
            while (route := it.route(made.id)) is None:
                await asyncio.sleep(0.01)
        assert route.state is RouteState.serving
        assert await it.store.get(made.id) == before
        assert await it.texts(made.id) == texts


@simulated
async def test_after_a_reboot_nothing_is_running_that_did_not_answer() -> None:
    """What the database calls running and the runtime has to start again is soon starting, until it answered."""
    log = MemoryEventLog(LoopClock())
    store = MemoryStore(log)
    async with stage(store=store, events=log) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
    async with stage(store=store, events=log) as it:
        it.probe.silent = True
        await it.until(made.id, Phase.starting)
        it.probe.silent = False
        await it.until(made.id, Phase.running)


@simulated
async def test_an_editor_that_hangs_is_not_running_and_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some unanswered probes it is starting, and running again once it answers; its processes are left alone."""
    monkeypatch.setattr("mooring.workspaces.reconcile.RECHECK_S", 0.05)
    runtime = MemoryRuntime()
    async with stage(runtime=runtime, light=QUICK) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        it.probe.silent = True
        await it.until(made.id, lambda w: w.reason == HANGS)
        await asyncio.sleep(1.5)
        assert (await it.store.get(made.id)).phase is Phase.starting
        it.probe.silent = False
        assert (await it.until(made.id, Phase.running)).generation == 1
        assert await runtime.usage(made.id) is not None


class LosingTemplates(StageTemplates):
    """Its document can get lost, in the database and as a file."""

    lost = False

    async def get(self, name: str, version: int | None = None) -> Template:
        if self.lost:
            raise NotFound(f"there is no version {version} of template {name}")
        return await super().get(name, version)


@simulated
async def test_a_workspace_whose_template_is_lost_fails_and_says_so() -> None:
    """What runs of it is ended; once the template is back a start is enough."""
    runtime, templates = MemoryRuntime(), LosingTemplates(LIGHT)
    async with stage(runtime=runtime, templates=templates) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        templates.lost = True
        it.reconciler.wake(made.id)
        failed = await it.until(made.id, Phase.failed)
        assert failed.reason.startswith("there is no version 1 of template light: put the template's file back")
        assert (await it.texts(made.id))[-1] == failed.reason
        async with asyncio.timeout(10):
            while await runtime.usage(made.id) is not None:
                await asyncio.sleep(0.01)
        route = it.route(made.id)
        assert route is not None
        assert route.state is RouteState.stopped
        templates.lost = False
        await it.service.start(ADA, made.id)
        await it.until(made.id, Phase.running)


@simulated
async def test_a_workspace_whose_template_is_lost_can_be_stopped_and_deleted() -> None:
    """Nothing of it stays, whatever runtime it had."""
    runtime, templates = MemoryRuntime(), LosingTemplates(LIGHT)
    async with stage(runtime=runtime, templates=templates) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        templates.lost = True
        await it.service.stop(ADA, made.id)
        await it.until(made.id, Phase.stopped)
        assert await runtime.usage(made.id) is None
        await it.service.delete(ADA, made.id)
        async with asyncio.timeout(10):
            while made.id in runtime.world.files:
                await asyncio.sleep(0.01)
        assert it.route(made.id) is None


class FolderRuntime(MemoryRuntime):
    """Deletes a folder that it has in common with `others`, and keeps what ran in it then."""

    def __init__(self) -> None:
        super().__init__()
        self.others: tuple[MemoryRuntime, ...] = ()
        self.ran: list[MemoryRuntime] = []

    async def delete(self, workspace_id: str) -> None:
        self.ran += [other for other in self.others if await other.usage(workspace_id) is not None]
        await super().delete(workspace_id)


@simulated
async def test_what_lost_its_template_is_ended_before_any_file_of_it_goes() -> None:
    """Whichever runtime it had: one that removes files first does so under no running editor of the other."""
    process, docker = FolderRuntime(), FolderRuntime()
    process.others, docker.others = (docker,), (process,)
    # It runs on the one that is asked last.
    templates = LosingTemplates(LIGHT.model_copy(update={"runtime": "docker"}))
    async with stage(runtime=process, docker=docker, templates=templates) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        templates.lost = True
        await it.service.delete(ADA, made.id)
        async with asyncio.timeout(10):
            while made.id in docker.world.files or it.route(made.id) is not None:
                await asyncio.sleep(0.01)
        assert docker.ran == process.ran == []


@simulated
async def test_suspending_waits_for_a_start_that_is_under_way() -> None:
    """A workspace whose start has only been asked for when Mooring stops does not run on without it."""
    runtime = SlowRuntime(LoopClock(), 0.2)
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.starting)
        await it.reconciler.suspend()
        assert await runtime.usage(made.id) is None


@simulated
async def test_suspending_waits_for_the_first_look() -> None:
    """A server that is stopped while it begins stops what ran before it: it had seen nothing yet, and went."""
    runtime = MemoryRuntime()
    log = MemoryEventLog(LoopClock())
    store = MemoryStore(log)
    async with stage(runtime=runtime, store=store, events=log) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
    async with stage(runtime=runtime, store=store, events=log) as it:
        assert await runtime.usage(made.id) is not None
        await it.reconciler.suspend()
        assert await runtime.usage(made.id) is None


@simulated
async def test_a_normal_stop_of_mooring_keeps_what_is_wanted() -> None:
    """Suspending stops every workspace; the next server starts those that should run."""
    runtime = MemoryRuntime()
    log = MemoryEventLog(LoopClock())
    store = MemoryStore(log)
    async with stage(runtime=runtime, store=store, events=log) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await it.reconciler.suspend()
        kept = await it.until(made.id, Phase.stopped)
        assert kept.desired is Desired.running
        assert await runtime.usage(made.id) is None
    async with stage(runtime=runtime, store=store, events=log) as it:
        await it.until(made.id, Phase.running)


@simulated
async def test_a_runtime_that_does_not_answer_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for is visible as the reason, and it goes on by itself once the runtime answers."""
    monkeypatch.setattr("mooring.workspaces.deadlines.RUNTIME_WITHIN_S", 0.1)
    runtime = NeverRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        waiting = await it.until(made.id, lambda w: "runtime did not answer" in w.reason)
        assert waiting.phase is Phase.starting
        runtime.released.set()
        await it.until(made.id, Phase.running)
        assert len([text for text in await it.texts(made.id) if "did not answer" in text]) == 1


@simulated
async def test_a_slow_runtime_is_only_slow() -> None:
    """A stop asked for during a slow start is what counts in the end."""
    async with stage(runtime=SlowRuntime(LoopClock(), 0.2)) as it:
        made = await it.create()
        await it.service.stop(ADA, made.id)
        await it.until(made.id, Phase.stopped)
        assert await it.runtime.usage(made.id) is None


class GoneStore(MemoryStore):
    """A database that can go away."""

    gone = False
    readable = False

    async def get(self, workspace_id: str) -> Workspace:
        if not self.readable:
            self._perhaps()
        return await super().get(workspace_id)

    async def update(self, workspace: Workspace, *, expected: int) -> Workspace:
        self._perhaps()
        return await super().update(workspace, expected=expected)

    def _perhaps(self) -> None:
        if self.gone:
            raise Unavailable("the database does not answer")


@simulated
async def test_a_database_that_goes_away_loses_nothing() -> None:
    """What happens while the database is gone is true in it soon after it is back."""
    runtime, store = MemoryRuntime(), GoneStore()
    async with stage(runtime=runtime, store=store) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        store.gone = True
        runtime.fail(made.id, "boom")
        await asyncio.sleep(1.0)
        store.gone = False
        began = it.clock.monotonic()
        assert (await it.until(made.id, Phase.failed)).reason == "boom"
        assert it.clock.monotonic() - began < 5


@simulated
async def test_an_answer_while_the_database_is_away_is_told() -> None:
    """An editor that answers when nothing can be written is running afterwards, and the event says how long it took."""
    store = GoneStore()
    store.readable = True
    async with stage(store=store) as it:
        it.probe.silent = True
        made = await it.create()
        await it.until(made.id, Phase.starting)
        store.gone = True
        it.probe.silent = False
        await asyncio.sleep(0.5)
        store.gone = False
        await it.until(made.id, Phase.running)
        async with asyncio.timeout(10):
            while [event.kind for event in await it.history(made.id)] != ["created", "starting", "running"]:
                await asyncio.sleep(0.01)


class AwayRuntime(MemoryRuntime):
    """Can be away."""

    away = False

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        if self.away:
            raise Unavailable("the runtime does not answer")
        return await super().apply(workspace, template)


@simulated
async def test_a_start_is_told_once_however_often_it_is_tried() -> None:
    """A runtime that is away for a while does not fill the history with starts; what it starts then is of now."""
    runtime = AwayRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await it.service.stop(ADA, made.id)
        await it.until(made.id, Phase.stopped)
        runtime.away = True
        await it.service.start(ADA, made.id)
        await it.until(made.id, lambda w: w.reason == "the runtime does not answer")
        await it.service.update(ADA, made.id, Change(limits=Limits(pids=64)))
        await asyncio.sleep(1.0)
        runtime.away = False
        running = await it.until(made.id, Phase.running)
        assert not running.restart_needed
        texts = await it.texts(made.id)
        assert (texts.count("starting"), texts.count("the runtime does not answer")) == (2, 1)


@pytest.mark.parametrize("readable", [True, False])
@simulated
async def test_crashes_while_the_database_is_away_are_told(readable: bool) -> None:  # noqa: FBT001
    """Whether it is locked or gone: afterwards there is an event that says how often the editor ended, and when."""
    runtime, store = MemoryRuntime(), GoneStore()
    store.readable = readable
    async with stage(runtime=runtime, store=store) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        store.gone = True
        runtime.crash(made.id, "boom")
        await asyncio.sleep(0.5)
        back_at = it.clock.now()
        store.gone = False
        async with asyncio.timeout(30):
            while not (told := [event for event in await it.history(made.id) if event.kind == "crashed"]):
                await asyncio.sleep(0.01)
        assert [event.text for event in told] == ["the editor ended and was started again: boom"]
        assert told[0].at < back_at
        await it.until(made.id, Phase.running)


@simulated
async def test_a_rename_moves_the_routes() -> None:
    """The new name's host is served, the old one's no more."""
    async with stage() as it:
        made = await it.create("first")
        await it.until(made.id, Phase.running)
        await it.service.rename(ADA, made.id, "second")
        async with asyncio.timeout(10):
            while (route := it.route(made.id)) is None or route.host != "second--ada.localhost":
                await asyncio.sleep(0.01)
        assert not [r for r in it.table.routes().values() if r.host.endswith("first--ada.localhost")]


@simulated
async def test_notices_become_events_once() -> None:
    """A failed clone is told once, however often it is observed and whoever restarts, also with control characters."""
    runtime = MemoryRuntime()
    log = MemoryEventLog(LoopClock())
    store = MemoryStore(log)
    for last in ("of the first server", "of the second server"):
        async with stage(runtime=runtime, store=store, events=log) as it:
            page = await store.page(owner=None, after=None, limit=10)
            made = page.items[0] if page.items else await it.create()
            await it.until(made.id, Phase.running)
            runtime.world.put(replace(runtime.world.seen[made.id], notices=("git clone \x1b[31mfailed", last)))
            async with asyncio.timeout(10):
                while last not in await it.texts(made.id):
                    await asyncio.sleep(0.01)
            assert (await it.texts(made.id)).count("git clone \N{REPLACEMENT CHARACTER}[31mfailed") == 1


@simulated
async def test_a_notice_is_the_reason_until_a_start_without_it() -> None:
    """A workspace that runs although its clone failed says so, and no longer when a restart made it good."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        runtime.world.put(replace(runtime.world.seen[made.id], notices=("git clone failed\nfatal: no",)))
        await it.until(made.id, lambda w: w.phase is Phase.running and w.reason == "git clone failed\nfatal: no")
        await it.service.restart(ADA, made.id)
        await it.until(made.id, lambda w: w.generation == 2 and w.phase is Phase.running and not w.reason)


@simulated
async def test_updates_hold_from_the_next_start() -> None:
    """A change of the environment is kept and does not touch what runs."""
    async with stage() as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        changed = await it.service.update(ADA, made.id, Change(environment={"A": "1"}))
        assert changed.spec.environment == {"A": "1"}
        assert changed.generation == 1
        assert changed.restart_needed
        await it.service.restart(ADA, made.id)
        restarted = await it.until(made.id, lambda w: w.generation == 2 and w.phase is Phase.running)
        assert not restarted.restart_needed


@simulated
async def test_any_start_takes_what_is_wanted_by_then() -> None:
    """One that vanished is started with the limits and environment of now, and needs no restart for them."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        assert not (await it.service.update(ADA, made.id, Change(idle=IdleRule(after_s=60)))).restart_needed
        assert (await it.service.update(ADA, made.id, Change(limits=Limits(cpu=2.0)))).restart_needed
        runtime.vanish(made.id)
        again = await it.until(made.id, lambda w: not w.restart_needed)
        assert again.started is not None
        assert again.started.limits.cpu == 2.0
        await it.until(made.id, Phase.running)
