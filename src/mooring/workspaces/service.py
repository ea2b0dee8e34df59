"""What can be done with a workspace. The service only writes what is wanted; the reconciler makes it so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from mooring.control.clock import Clock
from mooring.errors import Conflict, InvalidInput, NotFound, StaleRevision, Unavailable
from mooring.model.activity import Activity, explain, stops_at
from mooring.model.names import check_name, check_owner, new_id
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.workspaces.outbox import Outbox
from mooring.workspaces.pages import every
from mooring.workspaces.ports import Engine, Event, EventLog, ExecSession, Page, WorkspaceStore
from mooring.workspaces.requests import Caller, Change, IdleStatus, NewWorkspace, begun
from mooring.workspaces.templates import Catalogue

log = structlog.get_logger(__name__)

MAX_PAGE = 500
# Each lost race means that somebody else's write went through; more in a row than this is not a race any more.
_TRIES = 16
# Five thousand events of others a call: it must end, and a page with none of one's own says where to go on.
_LOOKS = 10
# Above every event's id: from the newest on.
_LAST = 2**62
_ALIVE = (Phase.starting, Phase.running)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the service is made of. `engines` by the template's `runtime`; `wake` has a workspace reconciled soon."""

    store: WorkspaceStore
    events: EventLog
    outbox: Outbox
    templates: Catalogue
    engines: Mapping[str, Engine]
    wake: Callable[[str], None]
    activity: Callable[[Workspace], Activity]
    clock: Clock


class WorkspaceService:
    """The use cases. Changes take `expected`, the revision that the caller saw; None means whatever is there.

    A workspace that the caller may not know of is `NotFound`. Every method may raise `Unavailable`; changes raise
    `StaleRevision` when `expected` is not the current revision, and `Conflict` while the workspace is being deleted.
    """

    def __init__(self, parts: Parts) -> None:
        self._store = parts.store
        self._events = parts.events
        self._outbox = parts.outbox
        self._templates = parts.templates
        self._engines = parts.engines
        self._wake = parts.wake
        self._activity = parts.activity
        self._clock = parts.clock
        self._creating = asyncio.Lock()

    @property
    def templates(self) -> Catalogue:
        """The templates that workspaces are made from."""
        return self._templates

    async def create(self, caller: Caller, new: NewWorkspace) -> Workspace:
        """Make a workspace, started unless told otherwise.

        Raises:
            InvalidInput: a name against the rule, or a template that does not exist or is broken.
            Conflict: the name is in use, or the runtime serves one person and that is somebody else.
            Unavailable: this machine has nothing that the template's runtime needs.
        """
        owner = check_owner(new.owner or caller.subject)
        if owner != caller.subject and not caller.is_admin:
            raise InvalidInput("owner: only an administrator creates workspaces of others", field="owner")
        check_name(new.name)
        template = await self._template_of(new.template)
        if missing := self._engines[template.runtime].missing():
            raise Unavailable(f"{missing}, or pick a template of another runtime", field="template")
        # Two people's first workspaces at the same moment would both find nobody else.
        async with self._creating:
            await self._refuse_second_person(owner, template)
            await self._templates.keep(template)
            workspace = await self._store.create(self._made(owner, new, template))
        await self._outbox.tell(workspace.id, "created", f"created from {template.name} version {template.version}")
        self._wake(workspace.id)
        return workspace

    async def get(self, caller: Caller, workspace_id: str) -> Workspace:
        """The workspace. Raises `NotFound`."""
        return _visible(await self._store.get(workspace_id), caller)

    async def find(self, caller: Caller, owner: str, name: str) -> Workspace:
        """The workspace of that owner and name. Raises `NotFound`."""
        return _visible(await self._store.find(owner, name), caller)

    async def page(self, caller: Caller, *, owner: str | None = None, after: str | None = None, limit: int) -> Page:
        """Workspaces in the order of their ids; of everybody only when an administrator names no owner."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"limit must be 1 to {MAX_PAGE}", field="limit")
        if owner is None and not caller.is_admin:
            owner = caller.subject
        if owner not in (None, caller.subject) and not caller.is_admin:
            return Page((), None)
        return await self._store.page(owner=owner, after=after, limit=limit)

    async def start(self, caller: Caller, workspace_id: str, *, expected: int | None = None) -> Workspace:
        """Have it run. Nothing happens when it does or is about to; a failed one is tried anew."""

        def change(workspace: Workspace) -> Workspace:
            if workspace.desired is Desired.running and workspace.phase is not Phase.failed:
                return workspace
            return begun(workspace)

        return await self._change(caller, workspace_id, expected, change, ("start", f"start asked by {caller.subject}"))

    async def stop(self, caller: Caller, workspace_id: str, *, expected: int | None = None, why: str = "") -> Workspace:
        """Have it stopped; `why` becomes part of the event (`stopped: idle for 30 min`)."""

        def change(workspace: Workspace) -> Workspace:
            if workspace.desired is Desired.stopped:
                return workspace
            return replace(workspace, desired=Desired.stopped, reason=why)

        event = ("stop", "" if why else f"stop asked by {caller.subject}")
        return await self._change(caller, workspace_id, expected, change, event)

    async def restart(self, caller: Caller, workspace_id: str, *, expected: int | None = None) -> Workspace:
        """Have it stopped and started, with the limits, environment and template version that it has by now."""
        event = ("restart", f"restart asked by {caller.subject}")
        return await self._change(caller, workspace_id, expected, begun, event)

    async def update(
        self, caller: Caller, workspace_id: str, change: Change, *, expected: int | None = None
    ) -> Workspace:
        """Change name, limits, environment or idle rule. Raises `InvalidInput`, `Conflict` (name in use)."""
        if change.name is not None:
            check_name(change.name)
        changed = [key for key in ("name", "limits", "environment", "idle") if getattr(change, key) is not None]
        given = {key: getattr(change, key) for key in changed if key != "name"}

        def apply(workspace: Workspace) -> Workspace:
            spec = workspace.spec.model_copy(update=given)
            return replace(workspace, name=change.name or workspace.name, spec=spec)

        return await self._change(caller, workspace_id, expected, apply, ("changed", "changed: " + ", ".join(changed)))

    async def rename(self, caller: Caller, workspace_id: str, name: str, *, expected: int | None = None) -> Workspace:
        """Give it another name, and so another host, at once."""
        return await self.update(caller, workspace_id, Change(name=name), expected=expected)

    async def delete(self, caller: Caller, workspace_id: str, *, expected: int | None = None) -> Workspace:
        """Have it and its files removed. Its name is free at once."""

        def change(workspace: Workspace) -> Workspace:
            return replace(workspace, desired=Desired.deleted, reason="being deleted")

        event = ("delete", f"delete asked by {caller.subject}")
        return await self._change(caller, workspace_id, expected, change, event)

    async def keep_awake(
        self, caller: Caller, workspace_id: str, until: float, *, expected: int | None = None
    ) -> Workspace:
        """Do not stop it for idleness before `until` (seconds since the epoch; one that is past ends it)."""
        ends = "no longer kept awake" if until <= self._clock.now() else "kept awake"

        def change(workspace: Workspace) -> Workspace:
            return replace(workspace, awake_until=until)

        return await self._change(caller, workspace_id, expected, change, ("keep-awake", ends))

    async def move_to_template(
        self, caller: Caller, workspace_id: str, version: int | None = None, *, expected: int | None = None
    ) -> Workspace:
        """Make it one of another version of its template, from the next start; the newest when None.

        Raises:
            InvalidInput: there is no such version.
            Conflict: that version uses another runtime, to which the files would not follow.
        """
        now = (await self.get(caller, workspace_id)).spec
        before = await self._templates.get(now.template, now.template_version)
        after = await self._template_of(now.template, version)
        if after.runtime != before.runtime:
            raise Conflict(
                f"version {after.version} of {after.name} uses runtime {after.runtime}: make a new workspace"
            )
        await self._templates.keep(after)

        def change(workspace: Workspace) -> Workspace:
            spec = workspace.spec.model_copy(update={"template_version": after.version})
            return replace(workspace, spec=spec)

        text = f"moved to version {after.version} of {after.name}"
        return await self._change(caller, workspace_id, expected, change, ("template", text))

    async def events(self, caller: Caller, workspace_id: str, *, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """Its events above `after`, oldest first."""
        await self.get(caller, workspace_id)
        return await self._events.after(workspace_id, after, limit=limit)

    async def history(self, caller: Caller, *, after: int, limit: int) -> tuple[tuple[Event, ...], int | None]:
        """Events above `after` of all that the caller may see, oldest first, and where to go on; None is the end.

        Among many events of others a page may be short, or empty, without being the last.
        """
        found: list[Event] = []
        for _ in range(_LOOKS):
            batch = await self._events.after(None, after, limit=MAX_PAGE)
            # After the events: one of a workspace that was just made must not be taken for another's.
            owned = None if caller.is_admin else {own.id async for own in every(self._store, caller.subject)}
            for event in batch:
                after = event.id
                if owned is None or event.workspace in owned:
                    found.append(event)
                if len(found) == limit:
                    return tuple(found), after
            if len(batch) < MAX_PAGE:
                return tuple(found), None
        return tuple(found), after

    async def follow(self, caller: Caller, workspace_id: str | None, *, after: int = 0) -> AsyncIterator[Event]:
        """Its events above `after`, then new ones until it is removed; of all that the caller may see, for ever."""
        if workspace_id is not None:
            await self.get(caller, workspace_id)
        seen: dict[str, bool] = {}
        async for event in self._events.follow(workspace_id, after):
            if event.workspace not in seen:
                seen[event.workspace] = await self._may_see(caller, event.workspace)
            if seen[event.workspace]:
                yield event

    async def until_removed(self, workspace_id: str) -> None:
        """Return once it and its files are gone; a store that is away is no end."""
        while True:
            with suppress(Unavailable):
                async for _ in self._events.follow(workspace_id, _LAST):
                    pass
                return
            await self._clock.sleep(1)

    async def logs(
        self, caller: Caller, workspace_id: str, *, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Its output from `offset` on, each chunk with the offset behind it."""
        engine = await self._engine_of(await self.get(caller, workspace_id))
        return engine.read(workspace_id, offset=offset, follow=follow)

    async def exec(
        self, caller: Caller, workspace_id: str, command: Sequence[str], environment: Mapping[str, str], *, tty: bool
    ) -> ExecSession:
        """Run a command in it. For its owner only. Raises `Conflict` when it does not run."""
        workspace = await self.get(caller, workspace_id)
        if workspace.owner != caller.subject:
            raise NotFound("no such workspace")
        if not command:
            raise InvalidInput("command must have at least one word", field="command")
        if any("\0" in word for word in command):
            raise InvalidInput("command: its words must hold no NUL", field="command")
        if workspace.phase not in _ALIVE:
            raise Conflict(f"the workspace is {workspace.phase}: start it first", field="phase")
        engine = await self._engine_of(workspace)
        return await engine.exec(workspace_id, command, environment=environment, tty=tty)

    async def listener(self, workspace_id: str, port: int) -> str | None:
        """The address of a port that the workspace's own processes listen on, else None. For the gateway."""
        try:
            workspace = await self._store.get(workspace_id)
        except NotFound:
            return None
        return await (await self._engine_of(workspace)).owns_port(workspace_id, port)

    async def newest_version(self, template: str) -> int | None:
        """The newest version of a template, None when it has gone."""
        try:
            return (await self._templates.get(template)).version
        except (NotFound, InvalidInput):
            return None

    def idle(self, workspace: Workspace) -> IdleStatus:
        """When it would stop by itself, and why."""
        if workspace.phase is not Phase.running:
            return IdleStatus(None, "it does not run")
        activity = self._activity(workspace)
        return IdleStatus(stops_at(activity, workspace.spec.idle), explain(activity, workspace.spec.idle))

    async def _engine_of(self, workspace: Workspace) -> Engine:
        template = await self._templates.get(workspace.spec.template, workspace.spec.template_version)
        return self._engines[template.runtime]

    async def _may_see(self, caller: Caller, workspace_id: str) -> bool:
        try:
            await self.get(caller, workspace_id)
        except NotFound:
            return False
        return True

    async def _template_of(self, name: str, version: int | None = None) -> Template:
        try:
            return await self._templates.get(name, version)
        except NotFound as error:
            raise InvalidInput(error.detail, field="template") from error

    async def _refuse_second_person(self, owner: str, template: Template) -> None:
        if template.runtime != "process":
            return
        async for other in every(self._store):
            if other.owner == owner:
                continue
            if await self._may_be_process(other):
                raise Conflict(
                    f"runtime process is for one person, and {other.owner} uses it: "
                    "pick a template with runtime docker",
                    field="template",
                )

    async def _may_be_process(self, workspace: Workspace) -> bool:
        try:
            template = await self._templates.get(workspace.spec.template, workspace.spec.template_version)
        except (NotFound, InvalidInput):
            # Its template may come back, and then two people would share a user of the machine.
            return True
        return template.runtime == "process"

    def _made(self, owner: str, new: NewWorkspace, template: Template) -> Workspace:
        given = new.limits.model_dump(exclude_unset=True) if new.limits else {}
        spec = Spec(
            template=template.name,
            template_version=template.version,
            limits=template.limits.model_copy(update=given),
            environment=new.environment,
            repository=new.repository,
            idle=new.idle or template.idle,
        )
        workspace = Workspace(
            id=new_id(),
            owner=owner,
            name=new.name,
            spec=spec,
            desired=Desired.stopped,
            phase=Phase.stopped,
            created_at=self._clock.now(),
        )
        return begun(workspace) if new.start else workspace

    async def _change(
        self,
        caller: Caller,
        workspace_id: str,
        expected: int | None,
        change: Callable[[Workspace], Workspace],
        event: tuple[str, str],
    ) -> Workspace:
        for _ in range(_TRIES):
            before = await self.get(caller, workspace_id)
            if expected not in (None, before.revision):
                raise StaleRevision(f"the revision is {before.revision} by now, not {expected}", field="revision")
            if before.desired is Desired.deleted:
                raise Conflict("the workspace is being deleted", field="desired")
            after = change(before)
            if after == before:
                return before
            try:
                after = await self._store.update(after, expected=before.revision)
            except StaleRevision:
                continue
            if event[1]:
                await self._outbox.tell(workspace_id, *event)
            self._wake(workspace_id)
            return after
        raise Unavailable("the workspace changes too fast: try again")


def _visible(workspace: Workspace, caller: Caller) -> Workspace:
    if workspace.owner != caller.subject and not caller.is_admin:
        raise NotFound("no such workspace")
    return workspace
