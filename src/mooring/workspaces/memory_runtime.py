"""A runtime in memory, and its faults as classes: what the contract suite and the simulation run on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mooring.control.clock import Clock
from mooring.errors import Conflict, Unavailable
from mooring.model.routes import PORT, Backend
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.workspaces.ports import Channel, Observation, Usage


@dataclass
class World:
    """What outlives a runtime instance, as processes outlive the server: observations, files, output."""

    seen: dict[str, Observation] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    output: dict[str, bytes] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    listeners: dict[tuple[str, int], str] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    version: int = 0

    def put(self, observation: Observation) -> None:
        """Make it so and wake the watches; what is stopped no longer exists but is told once more."""
        self.seen[observation.id] = observation
        self.wake()

    def wake(self) -> None:
        """Have every watch look again."""
        self.version += 1
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryRuntime:
    """An `Engine` whose workspaces are entries of a `World`. Exec answers with its own input, as `cat` does."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()

    def missing(self) -> str:
        return ""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        now = self.world.seen.get(workspace.id)
        if workspace.desired is not Desired.running:
            return self._stopped(workspace)
        if now is None or now.generation != workspace.generation or now.phase is Phase.stopped:
            now = self._started(workspace, template)
            self.world.files.setdefault(workspace.id, {})
            self._write(workspace.id, f"started generation {workspace.generation}\n")
            self.world.put(now)
        return now

    async def delete(self, workspace_id: str) -> None:
        for kept in (self.world.seen, self.world.files, self.world.output, self.world.usage):
            kept.pop(workspace_id, None)
        self.world.wake()

    async def watch(self) -> AsyncIterator[Observation]:
        told: dict[str, Observation] = {}
        while True:
            changed = self.world.changed
            for gone in told.keys() - self.world.seen.keys():
                yield Observation(gone, told.pop(gone).generation, Phase.stopped)
            for observation in tuple(self.world.seen.values()):
                if told.get(observation.id) != observation:
                    told[observation.id] = observation
                    yield observation
            if changed is self.world.changed:
                await changed.wait()

    async def usage(self, workspace_id: str) -> Usage | None:
        if not self._runs(workspace_id):
            return None
        return self.world.usage.get(workspace_id, Usage(0.0, 0, frozenset()))

    async def owns_port(self, workspace_id: str, port: int) -> str | None:
        return self.world.listeners.get((workspace_id, port)) if self._runs(workspace_id) else None

    def watch_age_s(self) -> float:
        return 0.0

    async def read(self, workspace_id: str, *, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            changed = self.world.changed
            kept = self.world.output.get(workspace_id, b"")
            offset = min(offset, len(kept))
            if len(kept) > offset:
                chunk, offset = kept[offset:], len(kept)
                yield offset, chunk
            elif not follow:
                return
            else:
                await changed.wait()

    async def exec(
        self, workspace_id: str, command: Sequence[str], *, environment: Mapping[str, str], tty: bool
    ) -> "Echo":
        if not self._runs(workspace_id):
            raise Conflict("the workspace does not run", field="phase")
        return Echo(tuple(command), dict(environment), tty)

    def crash(self, workspace_id: str, last_words: str) -> None:
        """Have its editor die once and be started again."""
        now = self.world.seen[workspace_id]
        self._write(workspace_id, last_words)
        self.world.put(replace(now, restarts=now.restarts + 1, reason=last_words))

    def fail(self, workspace_id: str, last_words: str) -> None:
        """Have its editor die once too often."""
        self._write(workspace_id, last_words)
        now = self.world.seen[workspace_id]
        self.world.put(replace(now, phase=Phase.failed, reason=last_words, editor=None, ports=None))

    def vanish(self, workspace_id: str) -> None:
        """Have it gone without anybody asking, as after a reboot."""
        self.world.put(replace(self.world.seen[workspace_id], phase=Phase.stopped, editor=None, ports=None))

    def _started(self, workspace: Workspace, template: Template) -> Observation:
        return Observation(
            workspace.id,
            workspace.generation,
            Phase.starting,
            editor=Backend(unix=f"/run/mooring/w/{workspace.id}/editor.sock", identity=workspace.id),
            ports=Backend(address=f"127.0.0.1:{PORT}", identity=workspace.id)
            if template.runtime == "docker"
            else Backend(listener_of=workspace.id),
            unlimited=tuple(sorted(workspace.spec.limits.model_dump(exclude_none=True))),
        )

    def _stopped(self, workspace: Workspace) -> Observation:
        now = self.world.seen.get(workspace.id)
        stopped = Observation(workspace.id, workspace.generation, Phase.stopped)
        if now is not None and now.phase is not Phase.stopped:
            self.world.put(stopped)
        return stopped

    def _runs(self, workspace_id: str) -> bool:
        now = self.world.seen.get(workspace_id)
        return now is not None and now.phase is Phase.starting

    def _write(self, workspace_id: str, text: str) -> None:
        self.world.output[workspace_id] = self.world.output.get(workspace_id, b"") + text.encode()


class Echo:
    """A command that writes its input to its output and ends with 0 at the end of it."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], tty: bool) -> None:  # noqa: FBT001
        self.command, self.environment, self.tty = command, environment, tty
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._status = 0

    async def write(self, data: bytes) -> None:
        self._input.put_nowait(data)

    async def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        while data := await self._input.get():
            yield Channel.stdout, data
        self._ended.set()

    async def resize(self, columns: int, rows: int) -> None:
        """It has no terminal."""

    async def wait(self) -> int:
        await self._ended.wait()
        return self._status

    async def close(self) -> None:
        if not self._ended.is_set():
            self._status = 129
            self._ended.set()
            self._input.put_nowait(b"")


class SlowRuntime(MemoryRuntime):
    """Takes its time for every change."""

    def __init__(self, clock: Clock, takes_s: float, world: World | None = None) -> None:
        super().__init__(world)
        self._clock = clock
        self._takes_s = takes_s

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        await self._clock.sleep(self._takes_s)
        return await super().apply(workspace, template)

    async def delete(self, workspace_id: str) -> None:
        await self._clock.sleep(self._takes_s)
        await super().delete(workspace_id)


class NeverRuntime(MemoryRuntime):
    """Does not answer until it is released."""

    def __init__(self, world: World | None = None) -> None:
        super().__init__(world)
        self.released = asyncio.Event()

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        await self.released.wait()
        return await super().apply(workspace, template)

    async def delete(self, workspace_id: str) -> None:
        await self.released.wait()
        await super().delete(workspace_id)


class LyingRuntime(MemoryRuntime):
    """Says that it started something and starts nothing: its watch and its log know of nothing."""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        if workspace.desired is Desired.running:
            return self._started(workspace, template)
        return await super().apply(workspace, template)


class CrashingRuntime(MemoryRuntime):
    """Its editors die at once, five times, and then are not started any more."""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        before = self.world.seen.get(workspace.id)
        now = await super().apply(workspace, template)
        if now.phase is Phase.starting and (before is None or before.generation != now.generation):
            self.fail(workspace.id, "boom")
        return self.world.seen.get(workspace.id, now)


class FlakyRuntime(MemoryRuntime):
    """Is `Unavailable` as often as `fails` says, once before and once after having acted."""

    def __init__(self, fails: Callable[[], bool], world: World | None = None) -> None:
        super().__init__(world)
        self._fails = fails

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        self._perhaps()
        seen = await super().apply(workspace, template)
        self._perhaps()
        return seen

    async def delete(self, workspace_id: str) -> None:
        self._perhaps()
        await super().delete(workspace_id)
        self._perhaps()

    def _perhaps(self) -> None:
        if self._fails():
            raise Unavailable("the runtime does not answer")
