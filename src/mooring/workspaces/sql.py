"""Workspaces, events and template history in the database."""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy import text as sql_text
from sqlalchemy.exc import IntegrityError

from mooring.control.clock import Clock
from mooring.errors import Conflict, NotFound, StaleRevision
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.store.database import Database
from mooring.workspaces.followed import Followed
from mooring.workspaces.ports import KEPT_EVENTS, Event, Page
from mooring.workspaces.tables import events, templates, workspaces

_EVENTS_LOCK = 7_246_120_932
_KNOWN_AS_GONE = 1000


class SqlStore:
    """A `WorkspaceStore`. Removing a workspace removes its events in the same transaction; `events` is told of it."""

    def __init__(self, database: Database, events: "SqlEventLog | None" = None) -> None:
        self._database = database
        self._events = events

    async def get(self, workspace_id: str) -> Workspace:
        async with self._database.read() as connection:
            row = (await connection.execute(select(workspaces).where(workspaces.c.id == workspace_id))).first()
        return _found(row)

    async def find(self, owner: str, name: str) -> Workspace:
        named = (workspaces.c.owner == owner) & (workspaces.c.name == name)
        kept = workspaces.c.desired != Desired.deleted.value
        async with self._database.read() as connection:
            row = (await connection.execute(select(workspaces).where(named & kept))).first()
        return _found(row)

    async def page(self, *, owner: str | None, after: str | None, limit: int) -> Page:
        wanted = select(workspaces).where(workspaces.c.id > (after or "")).order_by(workspaces.c.id).limit(limit + 1)
        if owner is not None:
            wanted = wanted.where(workspaces.c.owner == owner)
        async with self._database.read() as connection:
            rows = (await connection.execute(wanted)).all()
        items = tuple(_workspace(row) for row in rows[:limit])
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def create(self, workspace: Workspace) -> Workspace:
        made = replace(workspace, revision=1)
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(workspaces).values(**_row(made)))
        except IntegrityError as error:
            raise _taken(workspace) from error
        return made

    async def update(self, workspace: Workspace, *, expected: int) -> Workspace:
        after = replace(workspace, revision=expected + 1)
        mine = workspaces.c.id == workspace.id
        try:
            async with self._database.write() as connection:
                change = update(workspaces).where(mine, workspaces.c.revision == expected).values(**_row(after))
                if (await connection.execute(change)).rowcount == 0:
                    now = (await connection.execute(select(workspaces.c.revision).where(mine))).scalar()
                    if now is None:
                        raise NotFound("no such workspace")
                    raise StaleRevision(f"the revision is {now} by now, not {expected}", field="revision")
        except IntegrityError as error:
            raise _taken(workspace) from error
        return after

    async def remove(self, workspace_id: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(events).where(events.c.workspace == workspace_id))
            await connection.execute(delete(workspaces).where(workspaces.c.id == workspace_id))
        if self._events is not None:
            self._events.forget(workspace_id)


class SqlEventLog:
    """An `EventLog`. Who follows here what is told here is woken; those of another server look every two seconds."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        # By workspace, None for all of them: who follows another workspace need not look.
        self._followed: dict[str | None, Followed] = {}
        # The newest alone: who begins to follow one of them has seen it a moment ago.
        self._gone: deque[str] = deque(maxlen=_KNOWN_AS_GONE)

    async def append(
        self, workspace_id: str, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> Event:
        at = self._clock.now() if at is None else at
        event = Event(0, workspace_id, at, kind, text, dict(data or {}))
        values = {key: value for key, value in asdict(event).items() if key != "id"}
        async with self._database.write() as connection:
            if not self._database.is_sqlite:
                # Ids are drawn before the commit: without the lock 6 may be seen before 5, and 5 then missed.
                await connection.execute(_LOCK_EVENTS, {"lock": _EVENTS_LOCK})
            event_id = (await connection.execute(insert(events).values(**values).returning(events.c.id))).scalar_one()
            oldest = (
                select(events.c.id)
                .where(events.c.workspace == workspace_id)
                .order_by(events.c.id.desc())
                .offset(KEPT_EVENTS - 1)
                .limit(1)
                .scalar_subquery()
            )
            await connection.execute(delete(events).where(events.c.workspace == workspace_id, events.c.id < oldest))
        for which in (workspace_id, None):
            if (followed := self._followed.get(which)) is not None:
                followed.tell()
        return replace(event, id=event_id)

    async def after(self, workspace_id: str | None, event_id: int, *, limit: int = KEPT_EVENTS) -> tuple[Event, ...]:
        wanted = select(events).where(events.c.id > event_id).order_by(events.c.id).limit(limit)
        if workspace_id is not None:
            wanted = wanted.where(events.c.workspace == workspace_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(wanted)).all()
        return tuple(Event(**row._mapping) for row in rows)  # noqa: SLF001 - SQLAlchemy's documented name

    async def follow(self, workspace_id: str | None, event_id: int) -> AsyncIterator[Event]:
        if workspace_id in self._gone:
            return
        if (followed := self._followed.get(workspace_id)) is None:
            followed = Followed(partial(self.after, workspace_id), alone=self._database.is_sqlite)
            self._followed[workspace_id] = followed
        # Before anything is waited for: a removal meanwhile would tell nobody, and this would be followed for ever.
        followed.followers += 1
        try:
            event_id = min(event_id, await self._newest(workspace_id))
            while found := await followed.after(event_id):
                for event in found:
                    event_id = event.id
                    yield event
        finally:
            followed.followers -= 1
            if not followed.followers:
                # Nothing may ever happen to it again.
                del self._followed[workspace_id]

    def forget(self, workspace_id: str) -> None:
        """End what follows a workspace that was removed, now and later."""
        self._gone.append(workspace_id)
        if (followed := self._followed.get(workspace_id)) is not None:
            followed.end()

    async def _newest(self, workspace_id: str | None) -> int:
        wanted = select(func.max(events.c.id))
        if workspace_id is not None:
            wanted = wanted.where(events.c.workspace == workspace_id)
        async with self._database.read() as connection:
            return (await connection.execute(wanted)).scalar() or 0


class SqlTemplates:
    """A `TemplateHistory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, template: Template) -> None:
        document = template.model_dump(mode="json")
        try:
            async with self._database.write() as connection:
                row = insert(templates).values(name=template.name, version=template.version, document=document)
                await connection.execute(row)
        except IntegrityError as error:
            if await self.kept(template.name, template.version) != template:
                raise Conflict("kept with other contents", field="version") from error

    async def kept(self, name: str, version: int) -> Template | None:
        wanted = select(templates.c.document).where(templates.c.name == name, templates.c.version == version)
        async with self._database.read() as connection:
            document = (await connection.execute(wanted)).scalar()
        return None if document is None else Template.model_validate(document)


_LOCK_EVENTS = sql_text("SELECT pg_advisory_xact_lock(:lock)")


def _row(workspace: Workspace) -> dict[str, Any]:
    return {
        "id": workspace.id,
        "owner": workspace.owner,
        "name": workspace.name,
        "spec": workspace.spec.model_dump(mode="json"),
        "desired": workspace.desired.value,
        "phase": workspace.phase.value,
        "reason": workspace.reason,
        "revision": workspace.revision,
        "generation": workspace.generation,
        "started": workspace.started.model_dump(mode="json") if workspace.started else None,
        "created_at": workspace.created_at,
        "started_at": workspace.started_at,
        "active_at": workspace.active_at,
        "awake_until": workspace.awake_until,
        "limited": list(workspace.limited),
    }


def _workspace(row: Row[Any]) -> Workspace:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
    values |= {
        "spec": Spec.model_validate(values["spec"]),
        "started": Spec.model_validate(values["started"]) if values["started"] else None,
        "desired": Desired(values["desired"]),
        "phase": Phase(values["phase"]),
        "limited": tuple(values["limited"]),
    }
    return Workspace(**values)


def _found(row: Row[Any] | None) -> Workspace:
    if row is None:
        raise NotFound("no such workspace")
    return _workspace(row)


def _taken(workspace: Workspace) -> Conflict:
    return Conflict(f"{workspace.owner} has a workspace {workspace.name} already", field="name")
