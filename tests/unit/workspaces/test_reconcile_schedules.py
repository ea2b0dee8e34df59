"""The reconciler under thousands of schedules: seeded orders of everything that can happen, and faults at any point.

Whatever happened, once the faults are over what is observed is what is wanted.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from mooring.errors import Conflict, NotFound, Unavailable
from mooring.model.routes import RouteState
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.workspaces.memory import MemoryEventLog, MemoryStore
from mooring.workspaces.memory_runtime import FlakyRuntime, World
from mooring.workspaces.ports import Event
from support.simulation import LoopClock, explore
from support.workspaces import ADA, Stage, stage

SEEDS = 300


class Weather:
    """How often things fail: at any time, until it clears."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.bad = rng.choice([0.0, 0.05, 0.3])

    def fails(self) -> bool:
        return self.rng.random() < self.bad


class FlakyLog(MemoryEventLog):
    """The same database, asked to keep events."""

    def __init__(self, clock: LoopClock, weather: Weather) -> None:
        super().__init__(clock)
        self._weather = weather

    async def append(
        self, workspace_id: str, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> Event:
        await asyncio.sleep(self._weather.rng.choice([0.0, 0.0, 0.001]))
        if self._weather.fails():
            raise Unavailable("the database does not answer")
        return await super().append(workspace_id, kind, text, data, at=at)


class FlakyStore(MemoryStore):
    """A database that is away now and then, before a change and after it."""

    def __init__(self, events: MemoryEventLog, weather: Weather) -> None:
        super().__init__(events)
        self._weather = weather

    async def get(self, workspace_id: str) -> Workspace:
        await self._perhaps()
        return await super().get(workspace_id)

    async def update(self, workspace: Workspace, *, expected: int) -> Workspace:
        await self._perhaps()
        after = await super().update(workspace, expected=expected)
        await self._perhaps()
        return after

    async def remove(self, workspace_id: str) -> None:
        await self._perhaps()
        await super().remove(workspace_id)
        await self._perhaps()

    async def _perhaps(self) -> None:
        await asyncio.sleep(self._weather.rng.choice([0.0, 0.0, 0.001]))
        if self._weather.fails():
            raise Unavailable("the database does not answer")


async def act(it: Stage, world: World, workspace_id: str, rng: random.Random) -> None:
    """One thing that a person, the world or the gateway does."""
    try:
        await rng.choice([ask, happen, hinder])(it, world, workspace_id, rng)
    except (Unavailable, NotFound, Conflict):
        return


async def ask(it: Stage, _world: World, workspace_id: str, rng: random.Random) -> None:
    """A person wants something."""
    kind = rng.choices(["start", "stop", "restart", "delete"], [4, 4, 4, 1])[0]
    await getattr(it.service, kind)(ADA, workspace_id)


async def happen(_it: Stage, world: World, workspace_id: str, rng: random.Random) -> None:
    """Something befalls what runs."""
    runtime = FlakyRuntime(lambda: False, world)
    if await runtime.usage(workspace_id) is not None:
        kind = rng.choice(["crash", "vanish", "fail"])
        if kind == "vanish":
            runtime.vanish(workspace_id)
        else:
            getattr(runtime, kind)(workspace_id, "boom")


async def hinder(it: Stage, _world: World, _id: str, rng: random.Random) -> None:
    """The editors or the gateway stop answering, or answer again; or time passes."""
    kind = rng.choice(["silent", "away", "wait"])
    if kind == "silent":
        it.probe.silent = not it.probe.silent
    elif kind == "away":
        it.probe.gateway_is_away = not it.probe.gateway_is_away
    else:
        await asyncio.sleep(rng.choice([0.01, 0.5, 45.0]))


async def check(it: Stage, world: World, ids: list[str]) -> None:
    """What is observed is what is wanted, in the store, in the world and in the route table."""
    for workspace_id in ids:
        seen = world.seen.get(workspace_id)
        alive = seen is not None and seen.phase is Phase.starting
        route = it.route(workspace_id)
        try:
            workspace = await it.store.get(workspace_id)
        except NotFound:
            assert seen is None, "a deleted workspace's files are gone"
            assert route is None, "a deleted workspace has no route"
            continue
        assert workspace.desired is not Desired.deleted
        assert route is not None
        if workspace.desired is Desired.stopped:
            assert (workspace.phase, alive) == (Phase.stopped, False), (workspace, seen)
            assert (route.state, route.backends) == (RouteState.stopped, ())
        elif workspace.phase is Phase.failed:
            assert workspace.reason, "a failure has a reason"
            assert not alive, "nothing of a failed workspace runs"
            assert route.state is RouteState.stopped
        else:
            assert workspace.phase is Phase.running, (workspace, seen, await it.texts(workspace_id))
            assert seen is not None
            assert (alive, seen.generation) == (True, workspace.generation)
            assert route.state is RouteState.serving
            assert [backend.identity for backend in route.backends] == [workspace_id]


async def life(rng: random.Random) -> None:
    """Three workspaces, thirty things that happen, a kill of the server in the middle, then quiet."""
    weather, world, clock = Weather(rng), World(), LoopClock()
    log = FlakyLog(clock, weather)
    store = FlakyStore(log, weather)
    runtime = FlakyRuntime(weather.fails, world)
    ids: list[str] = []
    for _ in range(2):
        async with stage(runtime=runtime, store=store, events=log, clock=clock) as it:
            while len(ids) < 3:
                ids.append((await it.create(f"w{len(ids)}")).id)
            for _ in range(15):
                await act(it, world, rng.choice(ids), rng)
                await asyncio.sleep(rng.choice([0.0, 0.0, 0.003, 0.1]))
    async with stage(runtime=runtime, store=store, events=log, clock=clock) as it:
        # The faults end under a server that has met them: it must not wait for anything that will not come.
        await disturb(it, rng)
        weather.bad = 0.0
        await asyncio.sleep(60)
        await check(it, world, ids)


async def disturb(it: Stage, rng: random.Random) -> None:
    """The gateway answers 500, or is away, or both in turn, for some seconds; then it is well."""
    for _ in range(rng.choice([0, 1, 2, 4])):
        it.probe.silent, it.probe.gateway_is_away = rng.choice([True, False]), rng.choice([True, False])
        await asyncio.sleep(rng.choice([0.05, 1.0, 6.0, 29.0]))
    it.probe.silent = it.probe.gateway_is_away = False


def test_what_is_wanted_comes_true_under_every_schedule() -> None:
    """Starts, stops, deletes, crashes, a server that is killed, a database and a runtime that come and go."""
    explore(life, seeds=SEEDS)
