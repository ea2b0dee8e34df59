"""One look at one workspace: what was read, and everything that can be done about it."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from mooring.control.clock import Clock
from mooring.errors import Unavailable
from mooring.model.names import Hosts
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.workspaces.outbox import Outbox
from mooring.workspaces.ports import Engine, EventLog, Observation, Probe, WorkspaceStore
from mooring.workspaces.routes import routes_of
from mooring.workspaces.section import Section
from mooring.workspaces.templates import Catalogue

log = structlog.get_logger(__name__)
T = TypeVar("T")

_LOGS_WITHIN_S = 5.0
_TAIL_BYTES = 4096
_TAIL_LINES = 10
_OF_A_START = ("start", "restart", "starting", "crashed", "running")


@dataclass(frozen=True, slots=True)
class ReconcilerParts:
    """What the reconciler is made of; `engines` by the template's `runtime`."""

    store: WorkspaceStore
    events: EventLog
    outbox: Outbox
    templates: Catalogue
    engines: Mapping[str, Engine]
    probe: Probe
    section: Section
    hosts: Hosts
    clock: Clock


class Turn:
    """`workspace` is as it was last written; a write that finds it changed raises `StaleRevision` and ends the look.

    Each call of the runtime has `within_s` seconds.
    """

    def __init__(self, parts: ReconcilerParts, workspace: Workspace, template: Template, within_s: float) -> None:
        self.workspace = workspace
        self.template = template
        self.lost = ""
        """Why there is no template for it, empty when there is."""
        self._parts = parts
        self._within_s = within_s

    @property
    def _engine(self) -> Engine:
        return self._parts.engines[self.template.runtime]

    async def become(self, phase: Phase, reason: str = "", **changes: Any) -> None:  # noqa: ANN401 - as `replace`
        """Write what was observed, if it is news."""
        after = replace(self.workspace.observed(phase, printable(reason)), **changes)
        if after != self.workspace:
            self.workspace = await self._parts.store.update(after, expected=self.workspace.revision)

    async def note(self, phase: Phase, reason: str = "", **changes: Any) -> None:  # noqa: ANN401 - as `replace`
        """The same, unless the database is away: then nothing is written, and the caller goes on."""
        try:
            await self.become(phase, reason, **changes)
        except Unavailable as error:
            log.warning("not written", workspace=self.workspace.id, phase=phase, error=error.detail)

    async def event(
        self, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> None:
        """Tell it; `at` is when it happened, now when None."""
        await self._parts.outbox.tell(self.workspace.id, kind, printable(text), data, at=at)

    async def told(self, kind: str) -> set[str]:
        """The texts of the events of that kind."""
        return {e.text for e in await self._parts.events.after(self.workspace.id, 0) if e.kind == kind}

    async def ran(self) -> bool:
        """Whether its editor has answered since it was last started, as far as its events know."""
        kinds = [e.kind for e in await self._parts.events.after(self.workspace.id, 0) if e.kind in _OF_A_START]
        return kinds[-1:] == ["running"]

    def publish(self, seen: Observation | None) -> None:
        """Have the gateways serve what is so now."""
        routes = routes_of(self.workspace, self.template, seen, self._parts.hosts)
        self._parts.section.put(self.workspace.id, routes)

    async def apply(self, desired: Desired) -> Observation:
        """Have the runtime start or stop it. Raises `Unavailable` also when it does not answer in time."""
        wanted = replace(self.workspace, desired=desired)
        return await self._bounded(self._engine.apply(wanted, self.template))

    async def delete(self) -> None:
        """Have the runtime remove all of it, then forget it."""
        await self._bounded(self._engine.delete(self.workspace.id))
        await self._forget()

    async def answered(self) -> bool:
        """Whether its editor answers through the gateway. Raises `Unavailable` when the gateway does not."""
        return await self._parts.probe.answered(self.workspace, self.template)

    async def last_lines(self) -> str:
        """The end of its output, for a person; empty when there is none."""
        tail = b""
        try:
            async with asyncio.timeout(_LOGS_WITHIN_S):
                output = self._engine.read(self.workspace.id, offset=0, follow=False)
                async for _, data in output:
                    tail = (tail + data)[-_TAIL_BYTES:]
        except (TimeoutError, Unavailable) as error:
            log.warning("output not read", workspace=self.workspace.id, error=str(error))
        return "\n".join(tail.decode(errors="replace").splitlines()[-_TAIL_LINES:])

    async def _forget(self) -> None:
        await self._parts.store.remove(self.workspace.id)
        self._parts.outbox.forget(self.workspace.id)

    async def _bounded(self, call: Awaitable[T]) -> T:
        timeout = asyncio.timeout(self._within_s)
        try:
            async with timeout:
                return await call
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise Unavailable(f"the runtime did not answer within {self._within_s:.0f} s") from error


class LostTurn(Turn):
    """A look at a workspace whose template has gone: nobody knows its runtime, so each is told to end it."""

    def __init__(self, parts: ReconcilerParts, workspace: Workspace, why: str, within_s: float) -> None:
        none = Template(name=workspace.spec.template, editor=Editor(command=("none",)))
        super().__init__(parts, workspace, none, within_s)
        self.lost = f"{why}: put the template's file back and start the workspace, or delete it"

    async def apply(self, desired: Desired) -> Observation:
        wanted = replace(self.workspace, desired=desired)
        for engine in self._parts.engines.values():
            await self._bounded(engine.apply(wanted, self.template))
        return Observation(wanted.id, wanted.generation, Phase.stopped)

    async def delete(self) -> None:
        # Each engine removes the one folder: no process may run in it by then, whoever has started it.
        await self.apply(Desired.stopped)
        for engine in self._parts.engines.values():
            await self._bounded(engine.delete(self.workspace.id))
        await self._forget()


def printable(text: str) -> str:
    """`text` without control characters: a program's last words go to terminals, and PostgreSQL refuses a NUL."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
