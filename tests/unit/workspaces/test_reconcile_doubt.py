"""What cannot be seen is not called running, and what died while nobody looked is told."""

import asyncio
from dataclasses import replace
from functools import partial

import structlog

from mooring.errors import Unavailable
from mooring.model.routes import RouteState
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.workspaces.memory import MemoryEventLog, MemoryStore
from mooring.workspaces.memory_runtime import FlakyRuntime, MemoryRuntime, World
from mooring.workspaces.ports import Observation
from mooring.workspaces.reconcile import HANGS, RECHECK_S, WORKERS
from support.simulation import LoopClock, simulated
from support.workspaces import ADA, LIGHT, Stage
from support.workspaces import stage as any_stage

stage = partial(any_stage, clock=LoopClock())

AWAY = "the engine does not answer"
QUICK = LIGHT.model_copy(update={"editor": LIGHT.editor.model_copy(update={"start_timeout_s": 1})})


class AwayRuntime(MemoryRuntime):
    """Sees nothing and does nothing until it is `back`; what is left dead it tells before it starts it again."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.away = True
        self._hidden, world.seen = world.seen, {}

    def back(self) -> None:
        """See again what was there before."""
        self.world.seen, self.away = self._hidden, False

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        if self.away and workspace.desired is Desired.running:
            raise Unavailable(AWAY)
        return await super().apply(workspace, template)


class LateRuntime(MemoryRuntime):
    """Looks at nothing before it is asked: then it finds the editor dead, says so, and starts it again."""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        self.world.put(Observation(workspace.id, workspace.generation, Phase.stopped, reason="it was killed"))
        await asyncio.sleep(0.01)
        return await super().apply(workspace, template)


def database() -> tuple[MemoryEventLog, MemoryStore]:
    """One that outlives servers."""
    log = MemoryEventLog(LoopClock())
    return log, MemoryStore(log)


async def ran(log: MemoryEventLog, store: MemoryStore, runtime: MemoryRuntime) -> Workspace:
    """A workspace that was running when its server was killed."""
    async with stage(runtime=runtime, store=store, events=log) as it:
        made = await it.create()
        return await it.until(made.id, Phase.running)


class FullStore(MemoryStore):
    """Writes nothing any more once it is full."""

    full = False

    async def update(self, workspace: Workspace, *, expected: int) -> Workspace:
        if self.full:
            raise Unavailable("attempt to write a readonly database")
        return await super().update(workspace, expected=expected)


async def told(it: Stage, workspace_id: str, text: str) -> None:
    """Wait until its events say it."""
    async with asyncio.timeout(30):
        while text not in await it.texts(workspace_id):
            await asyncio.sleep(0.01)


@simulated
async def test_a_new_server_without_its_engine_calls_nothing_running() -> None:
    """What ran is starting, with the reason; what lived all along is running again, however long its editor takes."""
    world = World()
    log, store = database()
    before = await ran(log, store, MemoryRuntime(world))
    runtime = AwayRuntime(world)
    async with stage(runtime=runtime, store=store, events=log, light=QUICK) as it:
        doubted = await it.until(before.id, lambda w: w.reason == AWAY)
        assert doubted.phase is Phase.starting
        assert AWAY in await it.texts(before.id)
        it.probe.silent = True
        runtime.back()
        await it.until(before.id, lambda w: w.reason != AWAY or it.probe.asked > 3)
        await asyncio.sleep(1.5)
        assert (await it.store.get(before.id)).phase is Phase.starting
        it.probe.silent = False
        assert (await it.until(before.id, Phase.running)).generation == before.generation


@simulated
async def test_what_ran_is_remembered_by_every_server() -> None:
    """One that was killed while the engine was away knows that the editor ran, and so does the next: it is left be."""
    world = World()
    log, store = database()
    before = await ran(log, store, MemoryRuntime(world))
    runtime = AwayRuntime(world)
    async with stage(runtime=runtime, store=store, events=log, light=QUICK) as it:
        await it.until(before.id, lambda w: w.reason == AWAY)
    async with stage(runtime=runtime, store=store, events=log, light=QUICK) as it:
        it.probe.silent = True
        runtime.back()
        await asyncio.sleep(5)
        assert (await it.store.get(before.id)).phase is Phase.starting
    async with stage(runtime=runtime, store=store, events=log, light=QUICK) as it:
        assert (await it.until(before.id, Phase.running)).generation == before.generation


@simulated
async def test_an_editor_that_hangs_is_left_alone_by_every_server() -> None:
    """A person decides about it: also a server that was restarted meanwhile does not end it after the start's time."""
    world = World()
    log, store = database()
    async with stage(runtime=MemoryRuntime(world), store=store, events=log, light=QUICK) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        it.probe.silent = True
        it.reconciler.wake(made.id)
        await it.until(made.id, lambda w: w.reason == HANGS)
    async with stage(runtime=MemoryRuntime(world), store=store, events=log, light=QUICK) as it:
        it.probe.silent = True
        await asyncio.sleep(5)
        assert (await it.store.get(made.id)).phase is Phase.starting
        await it.service.restart(ADA, made.id)
        failed = await it.until(made.id, Phase.failed)
        assert "did not answer within 1 s" in failed.reason


@simulated
async def test_what_an_engine_does_not_see_must_answer() -> None:
    """An editor that answers runs on without its engine; one that does not is not called running."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        alive, dead = await it.create("alive"), await it.create("dead")
        for made in (alive, dead):
            await it.until(made.id, Phase.running)
        it.probe.silenced = {dead.id}
        asked = it.probe.asked
        for made in (alive, dead):
            runtime.world.put(replace(runtime.world.seen[made.id], blind=AWAY))
        doubted = await it.until(dead.id, Phase.starting)
        assert doubted.reason == AWAY
        await told(it, dead.id, AWAY)
        assert it.probe.asked > asked
        assert (await it.store.get(alive.id)).phase is Phase.running
        runtime.crash(dead.id, "it was killed")
        assert (await it.until(dead.id, lambda w: w.reason != AWAY)).reason == "it was killed"
        it.probe.silenced = set()
        await it.until(dead.id, Phase.running)
    assert RECHECK_S > 30, "nobody would have asked by themselves so soon"


@simulated
async def test_what_was_left_dead_is_told() -> None:
    """A new server that starts again what it found dead says so, with the runtime's reason."""
    world = World()
    log, store = database()
    before = await ran(log, store, MemoryRuntime(world))
    world.seen.clear()
    async with stage(runtime=LateRuntime(world), store=store, events=log) as it:
        await told(it, before.id, "starting again: it was killed")
        await it.until(before.id, Phase.running)
        assert (await it.texts(before.id))[-1].startswith("editor answered after")


@simulated
async def test_a_crash_keeps_its_reason_and_its_time() -> None:
    """The next start may come before anybody looked: why the editor died is told, and how long the new one took."""
    runtime = MemoryRuntime()
    async with stage(runtime=runtime) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        await asyncio.sleep(9)
        it.probe.takes_s = 0.5
        it.reconciler.wake(made.id)
        await asyncio.sleep(0.1)
        runtime.crash(made.id, "segmentation fault")
        await asyncio.sleep(0.1)
        runtime.world.put(replace(runtime.world.seen[made.id], reason=""))
        await told(it, made.id, "the editor ended and was started again: segmentation fault")
        await it.until(made.id, Phase.running)
        route = it.route(made.id)
        assert route is not None
        assert route.state is RouteState.serving
        last = (await it.history(made.id))[-1]
        assert last.kind == "running"
        assert last.data["seconds"] < 1


class ClosedRuntime(MemoryRuntime):
    """Sees nothing of what runs, and fails or hangs in the first call; with the second one it is there."""

    def __init__(self, world: World, *, hangs: bool) -> None:
        super().__init__()
        self._there = world
        self._hangs = hangs
        self.asked = 0

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        self.asked += 1
        if self.asked == 1:
            if self._hangs:
                await asyncio.Event().wait()
            raise Unavailable(AWAY)
        self.world = self._there
        return await super().apply(workspace, template)


async def stopped_while_it_begins(*, hangs: bool) -> None:
    """A server that ends after its first look at a workspace that runs, which came to nothing."""
    world = World()
    log = MemoryEventLog(LoopClock())
    store = MemoryStore(log)
    async with stage(runtime=MemoryRuntime(world), store=store, events=log) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
    runtime = ClosedRuntime(world, hangs=hangs)
    async with stage(runtime=runtime, store=store, events=log) as it:
        while not runtime.asked:
            await it.clock.sleep(0.001)
        await it.reconciler.suspend()
        assert made.id not in {seen.id for seen in world.seen.values() if seen.phase is Phase.starting}


@simulated
async def test_a_stop_waits_for_a_runtime_that_did_not_answer_at_the_first_look() -> None:
    """What ran before is unseen then, and would run on: it is asked for again."""
    await stopped_while_it_begins(hangs=False)


@simulated
async def test_a_stop_waits_for_no_call_that_hangs() -> None:
    """It is cut off after seconds and made anew: waited for, it would take all the time that the stop has."""
    await stopped_while_it_begins(hangs=True)


@simulated
async def test_a_stop_does_not_wait_long_for_what_nobody_has_seen() -> None:
    """An engine that is gone for good may have it, or may not: the stop ends all the same, and names it."""
    async with stage(runtime=FlakyRuntime(lambda: True)) as it:
        made = await it.create()
        await it.until(made.id, lambda w: "does not answer" in w.reason)
        began = it.clock.monotonic()
        with structlog.testing.capture_logs() as logs:
            await it.reconciler.suspend()
        assert it.clock.monotonic() - began < 15
        assert [line["workspace"] for line in logs if line["log_level"] == "error"] == [made.id]


class PartlyHanging(MemoryRuntime):
    """Sees and answers nothing of any workspace but `good`."""

    def __init__(self, world: World, good: str = "") -> None:
        super().__init__(World({good: world.seen[good]} if good else {}))
        self.good = good

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        if workspace.id != self.good:
            await asyncio.Event().wait()
        return await super().apply(workspace, template)


async def stopped_while_much_hangs(workspaces: int, *, last_answers: bool) -> tuple[set[str], set[str], float]:
    """Those that hang, those that the stop of a server that just began names, and how many seconds it took."""
    world = World()
    log, store = database()
    async with stage(runtime=MemoryRuntime(world), store=store, events=log) as it:
        ids = [(await it.create(f"w{number}")).id for number in range(workspaces)]
        for workspace_id in ids:
            await it.until(workspace_id, Phase.running)
    good = max(ids) if last_answers else ""
    async with stage(runtime=PartlyHanging(world, good), store=store, events=log) as it:
        await it.clock.sleep(0.001)
        began = it.clock.monotonic()
        with structlog.testing.capture_logs() as logs:
            await it.reconciler.suspend()
        named = {line["workspace"] for line in logs if line["log_level"] == "error"}
        return set(ids) - {good}, named, it.clock.monotonic() - began


@simulated
async def test_a_stop_names_everything_that_it_could_not_end() -> None:
    """More hang than there are workers: also what was still waiting for one is named, and soon."""
    hanging, named, took_s = await stopped_while_much_hangs(WORKERS + 8, last_answers=False)
    assert named == hanging
    assert took_s < 15


@simulated
async def test_what_hangs_keeps_a_stop_from_nothing_that_runs() -> None:
    """An engine that hangs takes all workers, again and again: what runs elsewhere is ended all the same."""
    hanging, named, took_s = await stopped_while_much_hangs(2 * WORKERS + 1, last_answers=True)
    assert named == hanging
    assert took_s < 20


class HangingAtLast(MemoryRuntime):
    """Has seen every workspace run; from when `good` is named on it answers for no other one."""

    good = ""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        await self._hang(workspace.id)
        return await super().apply(workspace, template)

    async def delete(self, workspace_id: str) -> None:
        await self._hang(workspace_id)
        await super().delete(workspace_id)

    async def _hang(self, workspace_id: str) -> None:
        if self.good and workspace_id != self.good:
            await asyncio.Event().wait()


async def stopped_while_what_ran_hangs(*, deleted: bool) -> None:
    """More than there are workers run and hang, and are stopped or deleted before the one that does not."""
    runtime = HangingAtLast()
    async with stage(runtime=runtime) as it:
        *hanging, good = [(await it.create(f"w{number}")).id for number in range(WORKERS + 9)]
        for workspace_id in (*hanging, good):
            await it.until(workspace_id, Phase.running)
        runtime.good = good
        if deleted:
            for workspace_id in hanging:
                await it.service.delete(ADA, workspace_id)
        for workspace_id in (*hanging, good):
            it.reconciler.wake(workspace_id)
        began = it.clock.monotonic()
        with structlog.testing.capture_logs() as logs:
            await it.reconciler.suspend()
        assert await runtime.usage(good) is None
        assert {line["workspace"] for line in logs if line["log_level"] == "error"} == set(hanging)
        assert it.clock.monotonic() - began < 31


@simulated
async def test_what_ran_and_hangs_keeps_a_stop_from_nothing_else() -> None:
    """An engine that begins to hang has more workspaces than there are workers: the others are ended in time."""
    await stopped_while_what_ran_hangs(deleted=False)


@simulated
async def test_deletes_that_hang_keep_a_stop_from_nothing_else() -> None:
    """The same with workspaces that are being deleted when Mooring stops."""
    await stopped_while_what_ran_hangs(deleted=True)


@simulated
async def test_a_stop_of_everything_needs_no_database() -> None:
    """On a disk that takes no write workspaces are ended all the same; what is wanted of them stays."""
    runtime, store = MemoryRuntime(), FullStore()
    async with stage(runtime=runtime, store=store) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        store.full = True
        await it.reconciler.suspend()
        assert await runtime.usage(made.id) is None
        assert (await store.get(made.id)).desired is Desired.running
