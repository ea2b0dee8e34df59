"""The workspaces feature, whole, on parts in memory: a stage for its tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mooring.control.clock import Clock, SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.model.activity import Activity
from mooring.model.names import Hosts
from mooring.model.routes import Route
from mooring.model.template import Editor, Template
from mooring.model.workspace import Phase, Workspace
from mooring.routes.table import RouteTable
from mooring.workspaces.memory import MemoryEventLog, MemoryStore, MemoryTemplates
from mooring.workspaces.memory_runtime import MemoryRuntime
from mooring.workspaces.outbox import Outbox
from mooring.workspaces.ports import Engine, Event, EventLog, WorkspaceStore
from mooring.workspaces.reconcile import WorkspaceReconciler
from mooring.workspaces.requests import Caller, NewWorkspace
from mooring.workspaces.section import Section
from mooring.workspaces.service import Parts, WorkspaceService
from mooring.workspaces.templates import Catalogue
from mooring.workspaces.turn import ReconcilerParts

ADA = Caller("ada")
ADMIN = Caller("root-user", is_admin=True)
LIGHT = Template(name="light", editor=Editor(command=("healthy",), start_timeout_s=30))


class StageProbe:
    """Answers as told, or when the runtime in memory has the editor and the route to it is published."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self.silent = False
        self.silenced: set[str] = set()
        self.takes_s = 0.0
        self.gateway_is_away = False
        self.asked = 0

    async def answered(self, workspace: Workspace, template: Template) -> bool:
        assert template.name
        self.asked += 1
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.gateway_is_away:
            raise Unavailable("the gateway does not answer")
        route = route_of(self._table, workspace.id)
        return not self.silent and workspace.id not in self.silenced and route is not None and bool(route.backends)


def route_of(table: RouteTable, workspace_id: str, what: str = "editor") -> Route | None:
    """A route of a workspace as it is served."""
    for key, route in table.routes().items():
        if key.name == f"workspace/{workspace_id}/{what}":
            return route
    return None


class StageTemplates(Catalogue):
    """The shipped templates, those of the folder `team`, and `light`."""

    def __init__(self, light: Template, team: Path | None = None) -> None:
        super().__init__(team, MemoryTemplates())
        self._light = light

    async def get(self, name: str, version: int | None = None) -> Template:
        return self._light if name == "light" else await super().get(name, version)


@dataclass
class Stage:
    """Use it as `async with stage(...) as it`; leaving it is a kill of the server, and `world` stays."""

    store: WorkspaceStore
    events: EventLog
    runtime: Engine
    table: RouteTable
    probe: StageProbe
    service: WorkspaceService
    reconciler: WorkspaceReconciler
    clock: Clock
    activity: dict[str, Activity] = field(default_factory=dict)

    async def create(self, name: str = "one", **more: object) -> Workspace:
        """A workspace of ada's from the light template."""
        return await self.service.create(ADA, NewWorkspace.model_validate({"name": name, "template": "light", **more}))

    async def until(self, workspace_id: str, seen: Phase | Callable[[Workspace], bool]) -> Workspace:
        """The workspace as soon as it is in that phase, or as wanted."""
        deadline = self.clock.monotonic() + 300
        while self.clock.monotonic() < deadline:
            workspace = await self.store.get(workspace_id)
            if (workspace.phase is seen) if isinstance(seen, Phase) else seen(workspace):
                return workspace
            await self.clock.sleep(0.01)
        raise AssertionError(f"not {seen}: {await self.store.get(workspace_id)}, {await self.texts(workspace_id)}")

    async def texts(self, workspace_id: str) -> list[str]:
        """What its events say."""
        return [event.text for event in await self.history(workspace_id)]

    async def history(self, workspace_id: str) -> tuple[Event, ...]:
        """Its events."""
        return await self.events.after(workspace_id, 0)

    def route(self, workspace_id: str, what: str = "editor") -> Route | None:
        """A route of it, as served."""
        return route_of(self.table, workspace_id, what)


@asynccontextmanager
async def stage(  # noqa: PLR0913 - each is a part that a test may replace
    *,
    runtime: Engine | None = None,
    docker: Engine | None = None,
    store: WorkspaceStore | None = None,
    events: EventLog | None = None,
    clock: Clock | None = None,
    light: Template = LIGHT,
    templates: Catalogue | None = None,
) -> AsyncIterator[Stage]:
    """Everything wired as the server does it, and running; both kinds of runtime are one unless `docker` is given."""
    clock = clock or SystemClock()
    log = events or MemoryEventLog(clock)
    kept = store or MemoryStore(log if isinstance(log, MemoryEventLog) else None)
    outbox = Outbox(log, clock)
    engine = runtime or MemoryRuntime()
    catalogue = templates or StageTemplates(light)
    engines = {"process": engine, "docker": docker or engine}
    table = RouteTable()
    probe = StageProbe(table)
    activity: dict[str, Activity] = {}
    reconciler = WorkspaceReconciler(
        ReconcilerParts(kept, log, outbox, catalogue, engines, probe, Section(table), Hosts("localhost"), clock)
    )
    service = WorkspaceService(
        Parts(
            kept, log, outbox, catalogue, engines, reconciler.wake, lambda w: activity.get(w.id, Activity(0.0)), clock
        )
    )
    async with Tasks("stage") as tasks:
        tasks.forever("events", outbox.run())
        reconciler.start(tasks)
        yield Stage(kept, log, engine, table, probe, service, reconciler, clock, activity)
    await asyncio.sleep(0)
