"""The server role: accounts, workspaces, the route table and the API, built from settings and run until told to end."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from mooring.accounts.disk import KeyFile, read_secret, write_secret
from mooring.accounts.service import Accounts
from mooring.accounts.sql import SqlAccounts
from mooring.api.http.app import create_app
from mooring.api.http.links import TICKET_PATH
from mooring.api.http.services import Modules, Services, WatchAge
from mooring.control.clock import Clock, SystemClock
from mooring.control.patience import until_available
from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.goproxy.remote import RemoteOperations
from mooring.model.activity import Activity
from mooring.model.names import Hosts
from mooring.model.workspace import Workspace
from mooring.routes.ports import SectionChange
from mooring.routes.published import Publisher
from mooring.routes.reports import Reports
from mooring.routes.rules import Rules
from mooring.routes.sql import SqlSections
from mooring.routes.table import RouteTable
from mooring.server.files import gateway_credential, make_folders, remove_endpoint, write_endpoint
from mooring.server.lifetime import Ending, Lifetime
from mooring.server.loopback import address
from mooring.server.modules_health import ModulesHealth
from mooring.server.probe import GatewayProbe
from mooring.server.replicas import hear
from mooring.server.web import Web
from mooring.server.workspace_modules import WorkspaceModules
from mooring.settings import Installation, cgroup_name, docker_socket
from mooring.store.changes import Changes
from mooring.store.database import Database, database_url
from mooring.store.migrate import migrate
from mooring.workspaces.docker.late import LateDocker
from mooring.workspaces.docker.modules import ADDRESS
from mooring.workspaces.idle import IdleLoop, IdleParts
from mooring.workspaces.outbox import Outbox
from mooring.workspaces.pages import Owned
from mooring.workspaces.ports import Engine
from mooring.workspaces.processes.cgroups import Cgroups, find
from mooring.workspaces.processes.runtime import ProcessRuntime
from mooring.workspaces.reconcile import WorkspaceReconciler
from mooring.workspaces.requests import Caller
from mooring.workspaces.section import Section
from mooring.workspaces.service import Parts, WorkspaceService
from mooring.workspaces.sql import SqlEventLog, SqlStore, SqlTemplates
from mooring.workspaces.templates import Catalogue
from mooring.workspaces.turn import ReconcilerParts

log = structlog.get_logger(__name__)

BUILT_IN_SOURCES = ("server", "accounts", "workspaces", "file", "redis")
_READY_TICKET_S = 900.0
_WATCH_MOST_S = 30.0
_LAST_EVENTS_S = 5.0
_DATABASE_WITHIN_S = 5.0
_MODULES_AWAY = "it is started again by itself; mooring status says more, and log/goproxy.log below MOORING_HOME"


@dataclass(frozen=True, slots=True)
class Plane:
    """The parts that live as long as the server. `changes` is None where no other server uses the database."""

    installation: Installation
    clock: Clock
    accounts: Accounts
    table: RouteTable
    section: Section
    outbox: Outbox
    publisher: Publisher
    reports: Reports
    reconciler: WorkspaceReconciler
    idle: IdleLoop
    workspaces: WorkspaceService
    probe: GatewayProbe
    engines: dict[str, Engine]
    modules: WorkspaceModules
    modules_health: ModulesHealth
    office: RemoteOperations
    seeded: asyncio.Event
    closing: asyncio.Event
    changes: Changes | None


async def run(installation: Installation, ready: int | None, lifetime: Lifetime) -> None:
    """Serve until this process should end. `ready` is a pipe that takes the signed-in URL once everything answers.

    A normal stop stops the workspaces; when the supervisor was killed or is replaced they run on, and the next server
    adopts them.
    """
    make_folders(installation.home)
    async with AsyncExitStack() as stack:
        database = Database(database_url(installation.database_url, installation.home.database))
        stack.push_async_callback(database.close)
        if not await _migrated(database, lifetime):
            return
        plane = await stack.enter_async_context(_plane(installation, database))
        tasks = await stack.enter_async_context(Tasks("server"))
        web = Web(create_app(_services(plane)), installation.home.api_socket)
        serving = tasks.spawn("web", web.run())
        _start(plane, tasks)
        announcing = tasks.spawn("ready", until_available("ready", lambda: _announce(plane, ready)))
        ending = await _ended(lifetime, tasks, serving, announcing)
        if ending is Ending.stop:
            await plane.reconciler.suspend()
        if ending is not Ending.orphaned:
            await plane.outbox.flush(_LAST_EVENTS_S)
        plane.closing.set()
        web.stop()
        await serving
        if ending is Ending.stop:
            remove_endpoint(installation.home)


async def _ended(
    lifetime: Lifetime, tasks: Tasks, serving: asyncio.Task[None], announcing: asyncio.Task[None]
) -> Ending:
    """Why to end.

    Raises:
        MooringError: what the web server or the start failed with; the supervisor begins anew.
    """
    asked = tasks.spawn("ending", lifetime.ended())
    waiting: set[asyncio.Task[Any]] = {asked, serving, announcing}
    while not asked.done():
        # A server that lives without its socket would never be ready, and nobody would begin it again.
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if serving in done and not asked.done():
            raise Unavailable("the web server ended by itself")
    ending: Ending = asked.result()
    return ending


async def _migrated(database: Database, lifetime: Lifetime) -> bool:
    """Wait for the database and bring it up to date; False when this process should end and it is not there.

    Raises:
        Misconfigured: this Mooring cannot use it.
    """
    async with Tasks("database") as tasks:
        migrating = tasks.spawn("migrate", until_available("the database", lambda: migrate(database)))
        ended = tasks.spawn("ending", lifetime.ended())
        await asyncio.wait({migrating, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not migrating.done() and ended.result() is Ending.stop:
            # Only a server that has its database stops workspaces.
            await asyncio.wait({migrating}, timeout=_DATABASE_WITHIN_S)
        if migrating.done():
            migrating.result()
        # Told to leave the workspaces as they are, it begins none.
        return migrating.done() and not (ended.done() and ended.result() is not Ending.stop)


@asynccontextmanager
async def _plane(installation: Installation, database: Database) -> AsyncIterator[Plane]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        modules = WorkspaceModules(installation.home, SqlStore(database), clock)
        engines = await _engines(installation, modules, stack)
        office = RemoteOperations(installation.home.modules_admin_socket, where=_MODULES_AWAY)
        stack.push_async_callback(office.close)
        yield _composed(installation, clock, database, engines, modules, office)


async def _engines(installation: Installation, modules: WorkspaceModules, stack: AsyncExitStack) -> dict[str, Engine]:
    home = installation.home
    process = ProcessRuntime(
        home,
        installation.listen,
        editor=installation.editor,
        cgroups=Cgroups(find(name=cgroup_name(home))),
        surroundings=modules.seen_from(address(installation)),
    )
    docker = LateDocker(home, docker_socket(installation.docker_host), lambda: _docker(installation, modules))
    # In this order: what has lost its template is removed by both, and the second takes the first's notes of it.
    return {"docker": await stack.enter_async_context(docker), "process": await stack.enter_async_context(process)}


async def _docker(installation: Installation, modules: WorkspaceModules) -> AbstractAsyncContextManager[Engine]:
    # Its client takes a while to be loaded, in which everybody else would wait.
    await asyncio.to_thread(import_module, "mooring.workspaces.docker.runtime")
    from mooring.workspaces.docker.runtime import DockerRuntime, Settings  # noqa: PLC0415

    settings = Settings(installation.home, installation.listen, installation.docker_host)
    return DockerRuntime(settings, modules.seen_from(ADDRESS))


def _composed(
    installation: Installation,
    clock: Clock,
    database: Database,
    engines: dict[str, Engine],
    modules: WorkspaceModules,
    office: RemoteOperations,
) -> Plane:
    hosts = Hosts(installation.listen.domain)
    table, reports = RouteTable(), Reports(clock)
    events = SqlEventLog(database, clock)
    store = SqlStore(database, events)
    outbox = Outbox(events, clock)
    templates = Catalogue(installation.home.templates, SqlTemplates(database))
    accounts = Accounts(SqlAccounts(database), KeyFile(installation.home.keys), clock, Owned(store))
    probe = GatewayProbe(installation.listen, accounts.probe_token)
    section = Section(table)
    reconciler = WorkspaceReconciler(
        ReconcilerParts(store, events, outbox, templates, engines, probe, section, hosts, clock)
    )
    activity = _Later()

    def wake(workspace_id: str) -> None:
        reconciler.wake(workspace_id)
        modules.wake()

    service = WorkspaceService(Parts(store, events, outbox, templates, engines, wake, activity, clock))
    idle = IdleLoop(IdleParts(store, templates, engines, reports, clock, _stop_idle(service)))
    activity.known = idle.activity
    return Plane(
        installation=installation,
        clock=clock,
        accounts=accounts,
        table=table,
        section=section,
        outbox=outbox,
        publisher=Publisher(table, SqlSections(database), hosts, BUILT_IN_SOURCES, _rules(installation)),
        reports=reports,
        reconciler=reconciler,
        idle=idle,
        workspaces=service,
        probe=probe,
        engines=engines,
        modules=modules,
        modules_health=ModulesHealth(installation.home.modules_socket, clock),
        office=office,
        seeded=asyncio.Event(),
        closing=asyncio.Event(),
        changes=None if database.is_sqlite else Changes(database),
    )


def _rules(installation: Installation) -> Rules:
    return Rules(installation.home.root, installation.listen.address, installation.listen.port)


class _Later:
    """The service shows what the idle loop knows, and the idle loop stops through the service."""

    def __init__(self) -> None:
        self.known: Callable[[Workspace], Activity] | None = None

    def __call__(self, workspace: Workspace) -> Activity:
        return self.known(workspace) if self.known else Activity(workspace.created_at)


def _stop_idle(service: WorkspaceService) -> Callable[[Workspace, str], Awaitable[object]]:
    system = Caller("mooring", is_admin=True)
    return lambda workspace, why: service.stop(system, workspace.id, expected=workspace.revision, why=why)


def _services(plane: Plane) -> Services:
    return Services(
        accounts=plane.accounts,
        workspaces=plane.workspaces,
        table=plane.table,
        publisher=plane.publisher,
        reports=plane.reports,
        hosts=Hosts(plane.installation.listen.domain),
        listen=plane.installation.listen,
        gateway_token=gateway_credential(plane.installation.home),
        watches=lambda: _watches(plane),
        problems=lambda: _problems(plane),
        registry=CollectorRegistry(),
        clock=plane.clock,
        closing=plane.closing,
        seeded=plane.seeded,
        modules=_modules(plane),
    )


def _modules(plane: Plane) -> Modules:
    listen = plane.installation.listen
    return Modules(
        administration=plane.office,
        allowed=plane.modules.allowed,
        wanted=lambda: plane.modules.is_wanted,
        proxy=listen.url(listen.domain, "/goproxy/t-TOKEN"),
    )


def _problems(plane: Plane) -> tuple[str, ...]:
    modules = plane.modules_health.problems() if plane.modules.is_wanted else ()
    return (*modules, *plane.outbox.problems())


def _watches(plane: Plane) -> tuple[WatchAge, ...]:
    # The process runtime must be seen; an engine of Docker that is away takes only its own workspaces with it.
    watches = [
        WatchAge(f"runtime/{name}", engine.watch_age_s(), _WATCH_MOST_S, required=name == "process")
        for name, engine in plane.engines.items()
        if plane.installation.docker_host or engine.watch_age_s() < float("inf") or not engine.missing()
    ]
    if plane.modules.is_wanted:
        health = plane.modules_health
        watches.append(WatchAge("goproxy", health.age_s(), _WATCH_MOST_S, required=False, starting=health.is_starting))
    return tuple(watches)


def _start(plane: Plane, tasks: Tasks) -> None:
    tasks.forever("accounts", plane.accounts.keep())
    tasks.forever("grants", _publish_grants(plane))
    tasks.forever("events", plane.outbox.run())
    plane.reconciler.start(tasks)
    tasks.forever("idle", plane.idle.run())
    tasks.forever("modules", plane.modules.run())
    # Beside it: a token is taken back also while the role hangs.
    tasks.forever("modules-health", plane.modules_health.run())
    if plane.changes is not None:
        tasks.forever("changes", hear(plane.changes, plane.accounts, plane.publisher))


async def _publish_grants(plane: Plane) -> None:
    await until_available("published sections", plane.publisher.restore)
    async for grants in plane.accounts.follow_grants():
        plane.table.apply(SectionChange("accounts", grants=grants), rank=0)
        if not plane.seeded.is_set():
            while not plane.section.is_open:
                await plane.clock.sleep(0.02)
            plane.seeded.set()


async def _announce(plane: Plane, ready: int | None) -> None:
    home, listen = plane.installation.home, plane.installation.listen
    known = read_secret(home.admin_token)
    token = await plane.accounts.ensure_admin(plane.installation.owner, known)
    if token != known:
        write_secret(home.admin_token, token + "\n")
    while not await plane.probe.ready():
        await plane.clock.sleep(0.02)
    write_endpoint(plane.installation)
    # The supervisor starts the module proxy when it hears that everything else is ready, however long that took.
    plane.modules_health.expect()
    if ready is None:
        return
    owner = await _owner_of(plane, token)
    ticket, _ = await plane.accounts.issue_ticket(owner, host=listen.domain, path="/", lifetime_s=_READY_TICKET_S)
    try:
        os.write(ready, (listen.url(listen.domain, f"{TICKET_PATH}?ticket={ticket}") + "\n").encode())
    except BrokenPipeError:
        # The supervisor has read the first server's line; this is a later one.
        log.info("ready again")


async def _owner_of(plane: Plane, token: str) -> str:
    return (await plane.accounts.authenticate_token(token)).user
