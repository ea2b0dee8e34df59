"""Store, events and template history in memory: what the contract suites and the simulation run on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from mooring.control.clock import Clock
from mooring.errors import Conflict, NotFound, StaleRevision
from mooring.model.template import Template
from mooring.model.workspace import Desired, Workspace
from mooring.workspaces.ports import KEPT_EVENTS, Event, Page


class MemoryStore:
    """A `WorkspaceStore`; it also forgets the events of what is removed, when it knows the log."""

    def __init__(self, events: "MemoryEventLog | None" = None) -> None:
        self._rows: dict[str, Workspace] = {}
        self._events = events

    async def get(self, workspace_id: str) -> Workspace:
        try:
            return self._rows[workspace_id]
        except KeyError:
            raise NotFound("no such workspace") from None

    async def find(self, owner: str, name: str) -> Workspace:
        for row in self._rows.values():
            if (row.owner, row.name) == (owner, name) and row.desired is not Desired.deleted:
                return row
        raise NotFound("no such workspace")

    async def page(self, *, owner: str | None, after: str | None, limit: int) -> Page:
        ids = sorted(i for i, row in self._rows.items() if i > (after or "") and owner in (None, row.owner))
        items = tuple(self._rows[i] for i in ids[:limit])
        return Page(items, items[-1].id if len(ids) > limit else None)

    async def create(self, workspace: Workspace) -> Workspace:
        self._refuse_second(workspace)
        if workspace.id in self._rows:
            raise Conflict("the id is in use", field="id")
        self._rows[workspace.id] = replace(workspace, revision=1)
        return self._rows[workspace.id]

    async def update(self, workspace: Workspace, *, expected: int) -> Workspace:
        now = await self.get(workspace.id)
        if now.revision != expected:
            raise StaleRevision(f"the revision is {now.revision} by now, not {expected}", field="revision")
        self._refuse_second(workspace)
        self._rows[workspace.id] = replace(workspace, revision=expected + 1)
        return self._rows[workspace.id]

    async def remove(self, workspace_id: str) -> None:
        self._rows.pop(workspace_id, None)
        if self._events is not None:
            self._events.forget(workspace_id)

    def _refuse_second(self, workspace: Workspace) -> None:
        for row in self._rows.values():
            same = (row.owner, row.name) == (workspace.owner, workspace.name)
            if same and row.id != workspace.id and Desired.deleted not in (row.desired, workspace.desired):
                raise Conflict(f"{workspace.owner} has a workspace {workspace.name} already", field="name")


class MemoryEventLog:
    """An `EventLog`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[Event] = []
        self._last = 0
        self._changed = asyncio.Event()
        self._gone: set[str] = set()

    async def append(
        self, workspace_id: str, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> Event:
        self._last += 1
        at = self._clock.now() if at is None else at
        event = Event(self._last, workspace_id, at, kind, text, dict(data or {}))
        self._events.append(event)
        own = [e for e in self._events if e.workspace == workspace_id]
        if len(own) > KEPT_EVENTS:
            self._events.remove(own[0])
        self._tell()
        return event

    async def after(self, workspace_id: str | None, event_id: int, *, limit: int = KEPT_EVENTS) -> tuple[Event, ...]:
        found = [e for e in self._events if e.id > event_id and workspace_id in (None, e.workspace)]
        return tuple(found[:limit])

    async def follow(self, workspace_id: str | None, event_id: int) -> AsyncIterator[Event]:
        own = [event.id for event in self._events if workspace_id in (None, event.workspace)]
        event_id = min(event_id, max(own, default=0))
        while workspace_id not in self._gone:
            changed = self._changed
            for event in await self.after(workspace_id, event_id):
                event_id = event.id
                yield event
            if changed is self._changed:
                await changed.wait()

    def forget(self, workspace_id: str) -> None:
        """Drop the events of a removed workspace, and end what follows it."""
        self._events = [e for e in self._events if e.workspace != workspace_id]
        self._gone.add(workspace_id)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class MemoryTemplates:
    """A `TemplateHistory`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Template] = {}

    async def keep(self, template: Template) -> None:
        if self._kept.setdefault((template.name, template.version), template) != template:
            raise Conflict("kept with other contents", field="version")

    async def kept(self, name: str, version: int) -> Template | None:
        return self._kept.get((name, version))
