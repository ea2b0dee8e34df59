"""Makes what is observed what is wanted: serial for one workspace, many at once.

It acts on what is so, not on what happened; what it remembers between looks may be lost: a new server adopts what runs.

Events that it writes: starting, running, crashed, silent, stopped, failed, notice, waiting.
"""

import random
from dataclasses import replace

import structlog

from mooring.control.backoff import Backoff
from mooring.control.reconcile import Reconciler
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, InvalidInput, Misconfigured, NotFound, StaleRevision, Unavailable
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.workspaces.deadlines import FIRST_LOOK_WITHIN_S, RUNTIME_WITHIN_S, call_within_s
from mooring.workspaces.pages import every
from mooring.workspaces.ports import Engine, Observation
from mooring.workspaces.starts import PATIENCE_S, SLOWEST_PROBE_S, Start, same_start
from mooring.workspaces.turn import LostTurn, ReconcilerParts, Turn, printable

log = structlog.get_logger(__name__)

WORKERS = 32
# A state must be true again within 5 s of the end of whatever was broken.
RETRY = Backoff(first=0.1, most=3.0)
RECHECK_S = 45.0
"""Seconds between probes of a running editor: one that hangs shows within a minute, and 200 are 4 probes a second."""
# While its runtime sees nothing, only the probe can tell that it died.
BLIND_S = 2.0
# Its terminals and builds may work on, and an overloaded machine looks the same: a person decides about them.
HANGS = "the editor does not answer any more; its processes were left alone: a restart of the workspace ends them"
GATEWAY_AWAY_S = 5.0
# Whoever stops Mooring waits for it: an engine that is gone for good may have such a workspace, or may not.
_UNSEEN_WITHIN_S = 10.0


class WorkspaceReconciler:
    """The loop. `start` it once; `wake` says that a workspace may have changed; `suspend` before a normal stop."""

    def __init__(self, parts: ReconcilerParts, rng: random.Random | None = None) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._seen: dict[str, Observation] = {}
        self._seen_at: dict[str, float] = {}
        self._begun: dict[str, tuple[int, Observation | None]] = {}
        self._starts: dict[str, Start] = {}
        self._noticed: dict[str, set[str]] = {}
        self._waiting: dict[str, str] = {}
        self._suspended = False
        self._listed = False
        within_s = 3 * RUNTIME_WITHIN_S
        self._loop = Reconciler(
            "workspaces", self.reconcile, workers=WORKERS, within_s=within_s, backoff=RETRY, rng=rng
        )

    def start(self, tasks: Tasks) -> None:
        """Start the loop and its watches; `tasks` owns them."""
        self._loop.start(tasks)
        for name, engine in self._parts.engines.items():
            tasks.forever(f"watch-{name}", self._watch(name, engine))
        _ = tasks.spawn("first-look", self._look_at_all())

    def wake(self, workspace_id: str) -> None:
        """Look at this workspace as soon as possible."""
        self._loop.add(workspace_id)

    @property
    def depth(self) -> int:
        """Workspaces that wait to be looked at."""
        return self._loop.queue.depth

    def observation(self, workspace_id: str) -> Observation | None:
        """What was last seen of it."""
        return self._seen.get(workspace_id)

    async def suspend(self, within_s: float = 30.0) -> None:
        """Stop every workspace and leave what is wanted of it as it is: the next start of Mooring starts it again."""
        self._suspended = True
        began = self._clock.monotonic()
        # A call that hangs would take all the time that there is, and its workspace run on.
        self._loop.hasten(FIRST_LOOK_WITHIN_S)
        for workspace_id in self._restless():
            self.wake(workspace_id)
        while (took_s := self._clock.monotonic() - began) < within_s and (not self._listed or self._restless(took_s)):
            await self._clock.sleep(0.02)
        for workspace_id in self._restless():
            log.error("workspace was not stopped: it may run on", workspace=workspace_id)

    def _restless(self, took_s: float = 0.0) -> frozenset[str]:
        alive = frozenset(i for i, seen in self._seen.items() if seen.phase in (Phase.starting, Phase.stopping))
        if took_s > _UNSEEN_WITHIN_S:
            return alive | (self._loop.queue.busy & self._seen.keys())
        # A start under way, one that nobody has looked at yet, a look that failed: each would run on unseen.
        return alive | self._loop.queue.busy.union(self._loop.queue.failing)

    async def reconcile(self, workspace_id: str) -> float | None:
        """Make the world match for one workspace. Seconds until the next look, None when only an event needs one.

        Raises:
            Unavailable: database or runtime do not answer; the loop tries again.
        """
        try:
            workspace = await self._parts.store.get(workspace_id)
        except NotFound:
            self._forget(workspace_id)
            return None
        try:
            return await self._towards(workspace)
        except StaleRevision:
            # Somebody asked for something else meanwhile: begin again with that.
            return 0.0

    async def _towards(self, workspace: Workspace) -> float | None:
        turn = await self._turn(workspace)
        try:
            again_s = await self._act(turn)
        except Unavailable as error:
            await self._explain(turn, error)
            raise
        self._waiting.pop(workspace.id, None)
        return again_s

    async def _turn(self, workspace: Workspace) -> Turn:
        try:
            template = await self._parts.templates.get(workspace.spec.template, workspace.template_version)
        except (NotFound, InvalidInput) as error:
            return LostTurn(self._parts, workspace, error.detail, self._within_s(workspace.id))
        return Turn(self._parts, workspace, template, self._within_s(workspace.id))

    def _within_s(self, workspace_id: str) -> float:
        return call_within_s(suspended=self._suspended, seen=workspace_id in self._seen)

    async def _act(self, turn: Turn) -> float | None:
        if turn.workspace.desired is Desired.deleted:
            await self._delete(turn)
            return None
        if turn.workspace.desired is Desired.stopped or self._suspended:
            await self._stop(turn)
            return None
        return await self._run(turn)

    # Towards deleted and stopped

    async def _delete(self, turn: Turn) -> None:
        workspace = turn.workspace
        self._parts.section.drop(workspace.id)
        if workspace.phase not in (Phase.stopped, Phase.stopping):
            await turn.become(Phase.stopping, "being deleted")
        await turn.delete()
        self._seen.pop(workspace.id, None)
        self._forget(workspace.id)

    async def _stop(self, turn: Turn) -> None:
        seen, phase = self._seen.get(turn.workspace.id), turn.workspace.phase
        over = phase is Phase.stopped or (self._suspended and phase is Phase.failed)
        if over and (seen is None or seen.phase is not Phase.starting):
            turn.publish(seen)
            if phase is Phase.failed and seen is not None and seen.phase is Phase.stopping:
                # Given up and not yet gone: when its engine is back nobody else would see to it.
                self._observe(await turn.apply(Desired.stopped))
            return
        why = turn.workspace.reason if turn.workspace.desired is Desired.stopped else "Mooring was stopped"
        # Everything is being ended: that no database takes it down must leave nothing running.
        write = turn.note if self._suspended else turn.become
        if phase is not Phase.stopped:
            await write(Phase.stopping, why)
        turn.publish(seen)
        self._observe(await turn.apply(Desired.stopped))
        self._starts.pop(turn.workspace.id, None)
        # Started again without anybody's word, after a stop of Mooring, it begins with what is wanted by then.
        await write(Phase.stopped, why, limited=(), started=None)
        turn.publish(None)
        await turn.event("stopped", f"stopped: {why}" if why else "stopped")

    # Towards running

    async def _run(self, turn: Turn) -> float | None:
        workspace = turn.workspace
        seen = self._seen.get(workspace.id)
        if workspace.phase is Phase.failed:
            turn.publish(None)
            if seen is not None and seen.phase is not Phase.stopped:
                # The runtime gave it up and keeps what it was made of: cgroups, a container.
                self._observe(await turn.apply(Desired.stopped))
            return None
        if turn.lost:
            await self._fail(turn, turn.lost)
            self._observe(await turn.apply(Desired.stopped))
            return None
        if seen is None or seen.generation != workspace.generation or seen.phase is Phase.stopped:
            seen = await self._begin(turn, seen)
        if seen is not None and seen.phase is Phase.failed:
            await self._fail(turn, seen.reason or "the editor does not start", at=self._seen_at[workspace.id])
            return 0.0
        return await self._look(turn, seen) if seen is not None else None

    async def _begin(self, turn: Turn, before: Observation | None) -> Observation | None:
        """Have it started; None when that cannot be."""
        workspace = turn.workspace
        # Nothing seen yet of one that should run: this server is new, and apply will find what the old one left.
        adopting = before is None and workspace.phase in (Phase.starting, Phase.running)
        if not adopting:
            await self._tell_start(turn, before)
        try:
            seen = await turn.apply(Desired.running)
        except (Misconfigured, InvalidInput, Conflict) as error:
            await self._fail(turn, error.detail)
            return None
        found = self._seen.get(workspace.id)
        self._observe(seen)
        if adopting and found is not None and found.phase is Phase.stopped:
            await self._tell_start(turn, found)
        return self._seen[workspace.id]

    async def _tell_start(self, turn: Turn, before: Observation | None) -> None:
        """Write that it starts, and with what. Once a start, however often the runtime must be asked for it."""
        workspace, news = turn.workspace, (turn.workspace.generation, before)
        started = workspace.spec.model_copy(update={"template_version": turn.template.version})
        if self._begun.get(workspace.id) == news:
            await turn.become(workspace.phase, workspace.reason, started=started)
            return
        await turn.become(Phase.starting, started_at=self._clock.now(), started=started)
        self._begun[workspace.id] = news
        self._starts.pop(workspace.id, None)
        turn.publish(None)
        again = before is not None and before.generation == workspace.generation
        why = (before.reason if before else "") or "it did not run any more"
        await turn.event("starting", f"starting again: {why}" if again else "starting")

    async def _look(self, turn: Turn, seen: Observation) -> float | None:
        known, before = self._starts.get(turn.workspace.id), turn.workspace
        start = await self._start_of(turn, seen)
        # What an earlier start waited for is over.
        is_news = before.phase is not Phase.starting or (start is not known and before.reason != seen.reason)
        if not start.answered and is_news:
            await turn.become(Phase.starting, seen.reason, started_at=self._clock.now())
        turn.publish(seen)
        await self._tell_notices(turn, seen)
        try:
            answered = seen.editor is not None and await turn.answered()
        except Unavailable:
            # The gateway is away, which is no fault of the editor's: its time does not run.
            start.deadline = max(start.deadline, self._clock.monotonic() + turn.template.editor.start_timeout_s)
            return GATEWAY_AWAY_S if start.answered else start.pace_s(self._clock.monotonic())
        return await (self._answered(turn, start, seen) if answered else self._silent(turn, start, seen))

    async def _start_of(self, turn: Turn, seen: Observation) -> Start:
        workspace, now = turn.workspace, self._clock.monotonic()
        since = self._clock.now() - (workspace.started_at or self._clock.now())
        begun = self._begun.pop(workspace.id, None) is not None
        known = self._starts.get(workspace.id)
        if known is not None and (known.generation, known.restarts) == (seen.generation, seen.restarts):
            return known
        timeout_s = turn.template.editor.start_timeout_s
        start = Start(seen.generation, seen.restarts, now - max(0.0, since), now + timeout_s)
        if known is None:
            answered = workspace.phase is Phase.running
            start.adopt(answered=answered, ran=not answered and not begun and await turn.ran())
        if known is not None and known.generation == seen.generation:
            start.began = now
            await turn.event("crashed", known.ended(seen), at=self._seen_at[workspace.id])
        self._starts[workspace.id] = start
        return start

    async def _answered(self, turn: Turn, start: Start, seen: Observation) -> float:
        await turn.become(Phase.running, "\n".join(seen.notices), limited=seen.limited)
        # After the write: one that failed is made up for, with its event.
        first = not start.answered
        start.answered, start.deadline = True, float("inf")
        start.silent_since, start.patience_s = None, PATIENCE_S
        turn.publish(seen)
        if first:
            took = self._clock.monotonic() - start.began
            data = {"seconds": round(took, 3), "limited": list(seen.limited), "unlimited": list(seen.unlimited)}
            await turn.event("running", f"editor answered after {took:.1f} s", data)
        return BLIND_S if seen.blind else RECHECK_S

    async def _silent(self, turn: Turn, start: Start, seen: Observation) -> float | None:
        now = self._clock.monotonic()
        if not start.answered and now > start.deadline:
            waited = turn.template.editor.start_timeout_s
            await self._fail(turn, f"the editor did not answer within {waited} s", await turn.last_lines())
            self._observe(await turn.apply(Desired.stopped))
            return None
        if start.answered:
            start.silent_since = now if start.silent_since is None else start.silent_since
            if now - start.silent_since < start.patience_s:
                return SLOWEST_PROBE_S
            why = seen.blind or HANGS
            await turn.become(Phase.starting, why)
            start.answered, start.began = False, now
            turn.publish(seen)
            await turn.event("silent", why)
        return start.pace_s(now)

    # What is told

    async def _fail(self, turn: Turn, reason: str, output: str = "", *, at: float | None = None) -> None:
        text = f"{reason}\n{output}" if output else reason
        await turn.become(Phase.failed, text, limited=())
        self._starts.pop(turn.workspace.id, None)
        turn.publish(None)
        await turn.event("failed", text, at=at)

    async def _explain(self, turn: Turn, error: Unavailable) -> None:
        """Say once what is waited for; not possible when it is the database that is away."""
        workspace = turn.workspace
        # A page that says it is starting, and not one that says there is no such workspace.
        turn.publish(self._seen.get(workspace.id))
        if self._waiting.get(workspace.id) == error.detail:
            return
        try:
            if workspace.desired is Desired.running and workspace.phase is not Phase.failed:
                await self._doubt(turn, error.detail)
        except (Unavailable, StaleRevision, NotFound):
            return
        self._waiting[workspace.id] = error.detail
        await turn.event("waiting", error.detail)

    async def _doubt(self, turn: Turn, why: str) -> None:
        workspace_id, phase = turn.workspace.id, turn.workspace.phase
        if phase is Phase.running and workspace_id not in self._seen:
            # It ran when the last server was killed; nobody knows whether it does, and the gateway says it starts.
            await turn.become(Phase.starting, why, started_at=self._clock.now())
        else:
            await turn.become(phase, why)

    async def _tell_notices(self, turn: Turn, seen: Observation) -> None:
        if not seen.notices:
            return
        workspace_id = turn.workspace.id
        if workspace_id not in self._noticed:
            self._noticed[workspace_id] = await turn.told("notice")
        for notice in map(printable, seen.notices):
            if notice not in self._noticed[workspace_id]:
                self._noticed[workspace_id].add(notice)
                await turn.event("notice", notice)

    # What is seen

    def _observe(self, seen: Observation) -> bool:
        """Remember it; False when it is no news. One of an earlier start than known says nothing about this one."""
        before = self._seen.get(seen.id)
        if before is not None and same_start(before, seen) and not seen.reason:
            # Started again, a runtime has no reason to tell any more; why it died is told when the crash is looked at.
            seen = replace(seen, reason=before.reason)
        if before == seen or (before is not None and seen.generation < before.generation):
            return False
        self._seen[seen.id] = seen
        # The look at it may be much later: nothing can be written while the database is away.
        self._seen_at[seen.id] = self._clock.now()
        return True

    async def _watch(self, name: str, engine: Engine) -> None:
        attempt = 0
        while True:
            try:
                async for seen in engine.watch():
                    attempt = 0
                    if self._observe(seen):
                        self._loop.add(seen.id)
            except Exception as error:  # a watch that ends would freeze every state
                log.warning("watch broke", runtime=name, error=str(error), exc_info=error)
            attempt += 1
            await self._clock.sleep(RETRY.delay(attempt))

    async def _look_at_all(self) -> None:
        attempt = 0
        while True:
            try:
                ids = [workspace.id async for workspace in every(self._parts.store)]
            except Unavailable as error:
                log.warning("workspaces cannot be listed", error=error.detail)
                await self._clock.sleep(RETRY.delay(attempt))
                attempt += 1
            else:
                self._parts.section.expect(ids)
                for workspace_id in ids:
                    self._loop.add(workspace_id)
                self._listed = True
                break
        # One workspace whose runtime does not answer must not keep the others' changes from the gateways.
        await self._clock.sleep(FIRST_LOOK_WITHIN_S)
        self._parts.section.open()

    def _forget(self, workspace_id: str) -> None:
        self._parts.section.drop(workspace_id)
        seen = self._seen.pop(workspace_id, None)
        self._seen_at.pop(workspace_id, None)
        if seen is not None and seen.phase is Phase.starting:
            log.warning("a workspace runs that the database does not know", workspace=workspace_id)
        self._begun.pop(workspace_id, None)
        self._starts.pop(workspace_id, None)
        self._noticed.pop(workspace_id, None)
        self._waiting.pop(workspace_id, None)
