"""Stops workspaces in which nobody types and nothing works. What counts is in `model.activity`; this gathers it.

In doubt nobody is stopped: not before a gateway has told for a while what it sees, and not before the runtime has told
twice what the workspace's processes use. A machine that slept, or whose clock was set, begins anew with all of it:
while it sleeps nobody is idle.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from mooring.control.clock import Clock
from mooring.errors import MooringError, NotFound, StaleRevision, Unavailable
from mooring.model.activity import Activity, stops_at
from mooring.model.workspace import Desired, IdleRule, Phase, Workspace
from mooring.workspaces.pages import every
from mooring.workspaces.ports import Engine, InputActivity, Usage, WorkspaceStore
from mooring.workspaces.templates import Catalogue

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 15.0
WINDOW_S = 60.0
"""Seconds over which CPU is averaged: a cursor that blinks is nothing, a compiler is a lot."""
HEARD_WITHIN_S = 15.0
"""A gateway reports every two seconds: one that is silent for longer may know of input that we do not."""
GRACE_S = 60.0
"""Seconds after the first report in which nobody is stopped: a gateway that was restarted too has to hear first."""
JUMP_S = 5.0
"""Seconds by which the clocks must part to be a sleep or a clock that was set: NTP slews both of them."""
KEEP_EVERY_S = 300.0
_SOONEST_S = 1.0


@dataclass(slots=True)
class _Work:
    """The last measured use of one start, the second of the last work, and whether a whole window was measured."""

    generation: int
    at: float
    cpu_s: float
    worked_at: float = 0.0
    measured: bool = False


@dataclass(frozen=True, slots=True)
class IdleParts:
    """What the idle loop is made of. `stop(workspace, why)` is conditional on the workspace's revision."""

    store: WorkspaceStore
    templates: Catalogue
    engines: Mapping[str, Engine]
    input: InputActivity
    clock: Clock
    stop: Callable[[Workspace, str], Awaitable[object]]


class IdleLoop:
    """`run` it once. `activity` is what it knows of a workspace, for everybody who shows it."""

    def __init__(self, parts: IdleParts) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._work: dict[str, _Work] = {}
        self._first_heard: float | None = None
        self._ahead_s = self._clock.now() - self._clock.monotonic()
        self._known_from = self._clock.now()
        self._jumped_at = 0.0

    def activity(self, workspace: Workspace) -> Activity:
        """The last seconds at which each kind of activity was seen; a jump of the clock counts as a start."""
        # Not in `look` alone: a machine falls asleep at any moment, and whoever asks may be the first after it.
        self._doubt_after_a_jump()
        work = self._work.get(workspace.id)
        return Activity(
            started_at=max(self._jumped_at, self._past(workspace.started_at or workspace.created_at)),
            input_at=max(self._past(self._parts.input.input_at(workspace.id)), self._past(workspace.active_at or 0.0)),
            work_at=work.worked_at if work and work.generation == workspace.generation else 0.0,
            awake_until=workspace.awake_until,
        )

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            wait_s = LOOK_EVERY_S
            try:
                wait_s = await self.look()
            except Unavailable as error:
                log.warning("idle workspaces not looked for", error=error.detail)
            await self._clock.sleep(wait_s)

    async def look(self) -> float:
        """Look at every running workspace once. Seconds until the next look.

        Raises:
            Unavailable: the database does not answer.
        """
        self._doubt_after_a_jump()
        running = [workspace async for workspace in every(self._parts.store) if _runs(workspace)]
        known = {workspace.id for workspace in running}
        self._work = {workspace_id: work for workspace_id, work in self._work.items() if workspace_id in known}
        heard_for_s = self._heard_for_s()
        soonest = LOOK_EVERY_S
        for workspace in running:
            try:
                left = await self._one(workspace, heard_for_s)
            except (StaleRevision, NotFound):
                # Somebody changed it meanwhile; the next look sees what.
                continue
            except Exception as error:  # one that cannot be judged must not keep all others running for ever
                foreign = None if isinstance(error, MooringError) else error
                log.warning("idle rule not applied", workspace=workspace.id, error=str(error), exc_info=foreign)
                continue
            soonest = min(soonest, max(_SOONEST_S, left))
        return soonest

    async def _one(self, workspace: Workspace, heard_for_s: float) -> float:
        """Seconds until it would stop."""
        rule = workspace.spec.idle
        if rule.after_s == 0:
            return LOOK_EVERY_S
        work = await self._measure(workspace)
        workspace = await self._keep(workspace)
        end = stops_at(self.activity(workspace), rule)
        # Read last: the clock may have been set while the engine or the database was asked.
        now = self._clock.now()
        if end is None or end > now:
            return LOOK_EVERY_S if end is None else end - now
        if heard_for_s >= min(GRACE_S, rule.after_s) and work is not None and work.measured:
            await self._parts.stop(workspace, f"idle for {_span(rule)}")
        return LOOK_EVERY_S

    def _doubt_after_a_jump(self) -> None:
        ahead_s = self._clock.now() - self._clock.monotonic()
        if abs(ahead_s - self._ahead_s) > JUMP_S:
            # A build seems to have rested while the laptop slept; after a step back the next measurement is far off.
            self._work.clear()
            self._first_heard = None
            self._jumped_at = self._known_from = self._clock.now()
        self._ahead_s = ahead_s

    def _past(self, at: float) -> float:
        """`at`; where it lies ahead the clock was set back since, and it counts from when that was seen or we began."""
        return at if at <= self._clock.now() + JUMP_S else self._known_from

    def _heard_for_s(self) -> float:
        """For how long gateways have told this server what they see; negative when that is not known now."""
        if self._parts.input.heard_s() > HEARD_WITHIN_S:
            # Who could not reach an editor could not type either, and is about to come back.
            self._first_heard = None
            return -1.0
        now = self._clock.monotonic()
        if self._first_heard is None:
            self._first_heard = now
        return now - self._first_heard

    async def _measure(self, workspace: Workspace) -> _Work | None:
        """What it did since the last measurement; None when it cannot be told."""
        window = min(WINDOW_S, workspace.spec.idle.after_s / 2)
        work = self._work.get(workspace.id)
        if work is not None and work.generation == workspace.generation and self._clock.now() - work.at < window:
            return work
        template = await self._parts.templates.get(workspace.spec.template, workspace.template_version)
        usage = await self._parts.engines[template.runtime].usage(workspace.id)
        if usage is None:
            self._work.pop(workspace.id, None)
            return None
        # A jump of the clock that somebody has noticed meanwhile left nothing to compare with.
        self._doubt_after_a_jump()
        self._work[workspace.id] = _after(self._work.get(workspace.id), usage, workspace, self._clock.now())
        return self._work[workspace.id]

    async def _keep(self, workspace: Workspace) -> Workspace:
        """Keep the last activity in the database, rarely: a restart may forget a quarter of the idle time at most."""
        activity = self.activity(workspace)
        seen = max(activity.input_at, activity.work_at)
        if seen - self._past(workspace.active_at or 0.0) < min(KEEP_EVERY_S, workspace.spec.idle.after_s / 4):
            return workspace
        return await self._parts.store.update(replace(workspace, active_at=seen), expected=workspace.revision)


def _runs(workspace: Workspace) -> bool:
    return workspace.phase is Phase.running and workspace.desired is Desired.running


def _after(before: _Work | None, usage: Usage, workspace: Workspace, now: float) -> _Work:
    rule = workspace.spec.idle
    works = bool(usage.commands & set(rule.keep_awake))
    work = _Work(workspace.generation, now, usage.cpu_s)
    # A smaller sum is that of an editor that was started again: nothing can be said about the time before.
    if before is not None and before.generation == workspace.generation and usage.cpu_s >= before.cpu_s:
        work.worked_at, work.measured = before.worked_at, True
        works = works or (usage.cpu_s - before.cpu_s) > rule.cpu_threshold * (now - before.at)
    if works:
        work.worked_at = now
    return work


def _span(rule: IdleRule) -> str:
    return f"{rule.after_s // 60} min" if rule.after_s >= 120 else f"{rule.after_s} s"  # noqa: PLR2004 - two minutes
