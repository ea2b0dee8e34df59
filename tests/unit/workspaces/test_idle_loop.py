"""The idle loop: who types or works is never stopped, an untouched open tab is."""

import math
from dataclasses import dataclass, field, replace

import pytest

from mooring.errors import Unavailable
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, IdleRule, Phase, Spec, Workspace
from mooring.workspaces.idle import IdleLoop, IdleParts
from mooring.workspaces.memory import MemoryEventLog, MemoryStore, MemoryTemplates
from mooring.workspaces.memory_runtime import MemoryRuntime
from mooring.workspaces.ports import Page, Usage
from mooring.workspaces.templates import Catalogue
from support.hands import Hands

RULE = IdleRule(after_s=1800, cpu_threshold=0.1, keep_awake=("make",))
WORKSPACE = Workspace(
    id="workspace1",
    owner="ada",
    name="one",
    spec=Spec(template="light", idle=RULE),
    desired=Desired.running,
    phase=Phase.running,
    generation=1,
    started=Spec(template="light", idle=RULE),
    started_at=1_000_000.0,
)
TEMPLATE = Template(name="light", editor=Editor(command=("x",)))


@dataclass
class Inputs:
    """What a gateway told."""

    heard: float = 1.0
    at: dict[str, float] = field(default_factory=dict)

    def input_at(self, workspace_id: str) -> float:
        return self.at.get(workspace_id, 0.0)

    def heard_s(self) -> float:
        return self.heard


class Room:
    """One running workspace, and time that passes."""

    def __init__(self, store: MemoryStore, runtime: MemoryRuntime, catalogue: Catalogue, hands: Hands) -> None:
        self.store, self.runtime, self.hands, self.inputs = store, runtime, hands, Inputs()
        self.stopped: list[str] = []
        self._catalogue = catalogue
        self.loop = self.server()

    def server(self) -> IdleLoop:
        """The loop of a server that starts now."""
        engines = {"process": self.runtime}
        return IdleLoop(IdleParts(self.store, self._catalogue, engines, self.inputs, self.hands, self._stop))

    async def _stop(self, workspace: Workspace, why: str) -> None:
        self.stopped.append(why)
        stopped = replace(workspace, desired=Desired.stopped, phase=Phase.stopped)
        await self.store.update(stopped, expected=workspace.revision)

    def uses(self, cpu_s: float, *commands: str) -> None:
        """What its processes have used until now."""
        self.runtime.world.usage[WORKSPACE.id] = Usage(cpu_s, 1, frozenset(commands))

    async def passes(self, minutes: float, *, cpu: float = 0.0, typing: bool = False) -> None:
        """Let time pass in steps of the loop's own, with so many cores busy."""
        end = self.hands.seconds + minutes * 60
        used = (await self.runtime.usage(WORKSPACE.id) or Usage(0, 0, frozenset())).cpu_s
        commands = (await self.runtime.usage(WORKSPACE.id) or Usage(0, 0, frozenset())).commands
        while self.hands.seconds < end and not self.stopped:
            step = await self.loop.look()
            used += cpu * step
            self.uses(used, *commands)
            self.hands.seconds += step
            if typing:
                self.inputs.at[WORKSPACE.id] = self.hands.now()


@pytest.fixture
async def room() -> Room:
    """A workspace that has just begun to run."""
    hands = Hands()
    store, history, runtime = MemoryStore(MemoryEventLog(hands)), MemoryTemplates(), MemoryRuntime()
    await history.keep(TEMPLATE)
    await store.create(WORKSPACE)
    await runtime.apply(WORKSPACE, TEMPLATE)
    return Room(store, runtime, Catalogue(None, history), hands)


async def test_an_untouched_workspace_stops_when_its_time_is_over(room: Room) -> None:
    """Half an hour after the last input, and not before, it is stopped, and the event says why."""
    await room.passes(10, typing=True)
    await room.passes(29.5)
    assert room.stopped == []
    await room.passes(2)
    assert room.stopped == ["idle for 30 min"]


async def test_who_types_is_never_stopped(room: Room) -> None:
    """A person who types for a day works in the same workspace at its end."""
    await room.passes(24 * 60, typing=True)
    assert room.stopped == []


async def test_a_silent_build_keeps_it_awake(room: Room) -> None:
    """Half a core busy and no browser open is work; a cursor that blinks is none."""
    await room.passes(240, cpu=0.5)
    assert room.stopped == []
    await room.passes(32, cpu=0.01)
    assert room.stopped == ["idle for 30 min"]


async def test_a_declared_command_keeps_it_awake(room: Room) -> None:
    """A command that the rule names is work, however little it uses."""
    room.uses(1.0, "make", "sleep")
    await room.passes(240)
    assert room.stopped == []
    room.uses(1.0, "sleep")
    await room.passes(33)
    assert room.stopped == ["idle for 30 min"]


async def test_a_declared_time_is_kept(room: Room) -> None:
    """Until the declared second nothing stops it."""
    now = await room.store.get(WORKSPACE.id)
    await room.store.update(replace(now, awake_until=room.hands.seconds + 7200), expected=now.revision)
    await room.passes(119)
    assert room.stopped == []
    await room.passes(2)
    assert room.stopped == ["idle for 30 min"]


async def test_the_rule_can_be_off(room: Room) -> None:
    """With after_s 0 it runs for ever."""
    now = await room.store.get(WORKSPACE.id)
    spec = now.spec.model_copy(update={"idle": IdleRule(after_s=0)})
    await room.store.update(replace(now, spec=spec), expected=now.revision)
    await room.passes(24 * 60)
    assert room.stopped == []


async def test_nobody_is_stopped_while_no_gateway_is_heard(room: Room) -> None:
    """After a restart of the server the past is unknown: first a gateway must have told what it saw."""
    room.hands.seconds += 7200
    room.inputs.heard = math.inf
    room.loop = room.server()
    await room.passes(60)
    assert room.stopped == []
    room.inputs.heard = 1.0
    room.inputs.at[WORKSPACE.id] = room.hands.seconds - 5
    await room.passes(29)
    assert room.stopped == []
    await room.passes(3)
    assert room.stopped == ["idle for 30 min"]


async def test_a_restart_in_the_middle_of_a_build_does_not_stop_it(room: Room) -> None:
    """Before a new server has measured what the processes use, it stops nothing."""
    await room.passes(240, cpu=0.5)
    room.loop = room.server()
    await room.passes(60, cpu=0.5)
    assert room.stopped == []


async def test_a_machine_that_slept_goes_on_with_its_build(room: Room) -> None:
    """A night with the lid closed is no idle time of what worked before it and works on; later the rule holds."""
    await room.passes(60, cpu=0.5)
    room.hands.slept += 8 * 3600
    await room.passes(60, cpu=0.5)
    assert room.stopped == []
    await room.passes(33)
    assert room.stopped == ["idle for 30 min"]


async def test_who_typed_until_the_lid_was_closed_has_a_whole_rule_after_it_is_opened(room: Room) -> None:
    """An hour of sleep is no hour in which nobody typed."""
    await room.passes(60, typing=True)
    room.hands.slept += 3600
    await room.passes(29)
    assert room.stopped == []
    await room.passes(3)
    assert room.stopped == ["idle for 30 min"]


async def test_a_machine_that_falls_asleep_during_a_look_stops_nobody(room: Room) -> None:
    """It wakes in the middle of a look, which began before it slept."""

    class Drowsy(MemoryStore):
        async def page(self, *, owner: str | None, after: str | None, limit: int) -> Page:
            room.hands.slept += 3600 if 1_001_200 <= room.hands.seconds < 1_001_215 else 0
            return await super().page(owner=owner, after=after, limit=limit)

    room.store = Drowsy(MemoryEventLog(room.hands))
    await room.store.create(WORKSPACE)
    room.loop = room.server()
    await room.passes(45)
    assert room.stopped == []
    assert room.hands.slept == 3600


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_clock_that_is_set_back_ends_no_rule(room: Room, *, restarted: bool) -> None:
    """What is idle by the new time is stopped by it: nobody waits until it is that late again or is hurried."""
    room.hands.slept = 7 * 86400
    await room.passes(5, cpu=0.5)
    await room.passes(20, typing=True)
    kept = await room.store.get(WORKSPACE.id)
    await room.store.update(replace(kept, started_at=room.hands.now()), expected=kept.revision)
    room.inputs.at[WORKSPACE.id] = room.hands.now()
    room.hands.slept = 0.0
    if restarted:
        room.loop = room.server()
    await room.passes(29)
    assert room.stopped == []
    await room.passes(3)
    assert room.stopped == ["idle for 30 min"]


@pytest.mark.parametrize("typing", [True, False])
async def test_a_clock_that_is_set_back_while_the_engine_is_asked(room: Room, *, typing: bool) -> None:
    """It stops nobody who types, and what nobody touches is measured on and stopped; the API may have asked as well."""

    class Slow(MemoryRuntime):
        async def usage(self, workspace_id: str) -> Usage | None:
            if 1_001_200 <= room.hands.seconds < 1_001_280 and room.hands.slept:
                room.hands.slept = 0.0
                room.loop.activity(await room.store.get(WORKSPACE.id))
            return await super().usage(workspace_id)

    room.hands.slept = 86_400.0
    room.runtime = Slow()
    await room.runtime.apply(WORKSPACE, TEMPLATE)
    room.loop = room.server()
    await room.passes(25, typing=typing, cpu=0.5)
    assert room.hands.slept == 0.0
    await room.passes(25, typing=typing)
    assert room.stopped == []
    await room.passes(10, typing=typing)
    assert room.stopped == ([] if typing else ["idle for 30 min"])


async def test_a_gateway_that_was_away_is_heard_for_a_while_first(room: Room) -> None:
    """Who could not reach an editor for an hour has a minute to come back."""
    await room.passes(10, typing=True)
    room.inputs.heard = math.inf
    await room.passes(60)
    room.inputs.heard = 1.0
    await room.passes(0.9)
    assert room.stopped == []
    await room.passes(2)
    assert room.stopped == ["idle for 30 min"]


async def test_one_that_cannot_be_judged_does_not_end_the_loop(room: Room) -> None:
    """An error that nobody thought of is that workspace's alone: the others are still looked at."""

    class Strange(MemoryRuntime):
        async def usage(self, workspace_id: str) -> Usage | None:
            if workspace_id == "workspace0":
                raise KeyError(workspace_id)
            return await super().usage(workspace_id)

    room.runtime = Strange(room.runtime.world)
    room.loop = room.server()
    await room.store.create(replace(WORKSPACE, id="workspace0", name="zero"))
    await room.passes(33)
    assert room.stopped == ["idle for 30 min"]


async def test_activity_is_kept_sparingly(room: Room) -> None:
    """An hour of typing is a dozen writes, and what is kept is never older than a quarter of the rule."""
    await room.passes(60, typing=True)
    kept = await room.store.get(WORKSPACE.id)
    assert kept.revision < 20
    assert kept.active_at is not None
    assert room.hands.seconds - kept.active_at <= 450


async def test_a_runtime_that_does_not_answer_stops_nobody(room: Room) -> None:
    """What cannot be measured may be work."""

    class Mute(MemoryRuntime):
        async def usage(self, workspace_id: str) -> Usage | None:
            raise Unavailable(f"no answer about {workspace_id}")

    room.runtime = Mute(room.runtime.world)
    room.loop = room.server()
    for _ in range(300):
        room.hands.seconds += await room.loop.look()
    assert room.stopped == []


async def test_what_was_not_measured_may_be_work(room: Room) -> None:
    """A runtime that answers again after its silence has to answer twice: one sum says nothing about now."""
    room.runtime.world.usage.clear()

    class Deaf(MemoryRuntime):
        async def usage(self, workspace_id: str) -> Usage | None:
            raise Unavailable(f"no answer about {workspace_id}")

    engine, room.runtime = room.runtime, Deaf(room.runtime.world)
    room.loop = room.server()
    for _ in range(300):
        room.hands.seconds += await room.loop.look()
    room.loop._parts.engines["process"] = engine  # type: ignore[index]
    room.runtime = engine
    await room.passes(60, cpu=0.5)
    assert room.stopped == []


async def test_an_editor_that_was_started_again_is_measured_anew(room: Room) -> None:
    """Its sum begins at nothing: what it has done since, just when the time is over, is not known to be too little."""
    room.uses(1000.0)
    await room.passes(29.5)
    room.uses(0.0)
    await room.passes(60, cpu=0.5)
    assert room.stopped == []


async def test_a_gateway_has_time_to_hear_of_a_person(room: Room) -> None:
    """Server and gateway have just been started again: who goes on typing within the minute is not stopped first."""
    now = await room.store.get(WORKSPACE.id)
    short = now.spec.model_copy(update={"idle": IdleRule(after_s=60)})
    await room.store.update(replace(now, spec=short), expected=now.revision)
    room.hands.seconds += 7200
    room.loop = room.server()
    await room.passes(0.75)
    assert room.stopped == []
    room.inputs.at[WORKSPACE.id] = room.hands.seconds
    await room.passes(0.75)
    assert room.stopped == []
    await room.passes(1)
    assert room.stopped == ["idle for 60 s"]
