"""Picks the parts of a module proxy, and serves it alone; inside `mooring up` see `goproxy_role`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import httpx2
import structlog
import uvloop

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, Misconfigured, MooringError, NotFound
from mooring.goproxy import asgi, chain, goenv, leftovers, service
from mooring.goproxy.access import Access
from mooring.goproxy.audit import Recorded
from mooring.goproxy.catalog import Catalog
from mooring.goproxy.config import Config
from mooring.goproxy.databases import Database, DatabaseAddress, SumDatabases
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.eviction import Eviction
from mooring.goproxy.flight import Once
from mooring.goproxy.folder import Folder
from mooring.goproxy.gate import Gate
from mooring.goproxy.gocommand import GoCommand
from mooring.goproxy.hits import Hits
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.names import Ask, Kind, ask
from mooring.goproxy.notary import Notary
from mooring.goproxy.operations import Operations
from mooring.goproxy.operations import Parts as OperationParts
from mooring.goproxy.pins import Pins
from mooring.goproxy.policy import Filter
from mooring.goproxy.ports import FullStore
from mooring.goproxy.s3 import S3Store
from mooring.goproxy.sources import NotaryDatabase, PublicDatabase, Sources
from mooring.goproxy.sumdb import PublicRecord, SumDB
from mooring.goproxy.tallies import Tallies, kept
from mooring.goproxy.telemetry import Telemetry
from mooring.goproxy.upstream import CONNECT_S, Upstream, client
from mooring.goproxy.vcs import VersionControl
from mooring.server.door import BACKLOG, answering, encryption
from mooring.server.lifetime import Lifetime
from mooring.server.logs import to_stdout
from mooring.server.usual import ShortWay
from mooring.settings import environment

log = structlog.get_logger(__name__)

_EVICT_EVERY_S = 600.0
_SWEEP_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Goproxy:
    """A proxy that is ready to serve."""

    app: asgi.App
    proxy: service.Proxy
    store: FullStore
    notary: Notary
    eviction: Eviction
    pins: Pins
    recorded: Recorded
    """The hash on record for a version, for the audit."""
    operations: Operations
    telemetry: Telemetry
    rules: Filter
    database: SumDB | None
    direct: VersionControl | Folder
    hits: ShortWay | None
    """To what is on this machine's disk."""


@asynccontextmanager
async def build(
    config: Config, *, only: Folder | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[Goproxy]:
    """A proxy as configured, until the end of the block; with `only` a folder is the source of everything.

    It counts in `telemetry`, which may have counted for another one before. Its limits are kept by `bounded`.

    Raises:
        Misconfigured, InvalidInput: a setting cannot work; says which.
    """
    go = await _environment(config)
    disk = DiskStore(config.root)
    disk.prepare()
    ledger = await asyncio.to_thread(Ledger, config.root / "notary", config.notary)
    async with client(config.upstream_timeout_s) as http, _store(config, disk) as store, Tasks("goproxy") as tasks:
        upstreams = _upstreams(config.upstream or go.proxy, http, only)
        database = _database(config, go, upstreams, http, store, Once(tasks))

        async def mod_hash(module: str, version: str) -> str:
            return await proxy.mod_hash(module, version)

        notary = Notary(ledger, mod_hash)
        direct = only or VersionControl(_command(config), Once(tasks))
        sources = Sources(
            private=config.private,
            unrecorded=config.nosumdb,
            public=chain.Chain(upstreams),
            direct=direct,
            database=PublicRecord(database) if database else None,
            notary=notary,
        )
        parts = service.Parts(store, disk.spool, sources.source, sources.verification)
        proxy = service.Proxy(parts, tasks, lifetimes=config.lifetimes)
        pins = Pins(config.root / "pins")
        recorded = _recorded(sources, database, notary)
        eviction = Eviction(store, pins, _returns(sources, recorded, proxy))
        databases = _databases(sources, database, notary, proxy)
        catalog, rules = Catalog(store, SystemClock()), Filter(config.filter)
        telemetry = telemetry or Telemetry(Tallies())
        gate = Gate(Access(config.tokens), rules, sources.is_private)
        app = asgi.App(
            asgi.Parts(
                proxy,
                databases,
                gate,
                catalog,
                telemetry,
                elsewhere=_elsewhere(upstreams),
                healthy=store.healthy,
            )
        )
        operations = Operations(
            OperationParts(
                store,
                catalog,
                telemetry.tallies,
                pins,
                eviction,
                sources.is_private,
                vouches=_vouches(sources, database, notary),
                sumdb=notary.key,
                max_bytes=config.max_bytes,
            )
        )
        yield Goproxy(
            app,
            proxy,
            store,
            notary,
            eviction,
            pins,
            recorded,
            operations,
            telemetry,
            rules,
            database,
            direct,
            hits=Hits(disk, gate, telemetry).answer if store is disk else None,
        )
        # A client that had all of a module would find the next process without it.
        await proxy.settle()


@asynccontextmanager
async def _store(config: Config, disk: DiskStore) -> AsyncIterator[FullStore]:
    if config.s3 is None:
        yield disk
        return
    timeout_s = config.upstream_timeout_s
    # Who waits for a free connection waits for others' zips, which may take long and are no fault.
    timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S), pool=None)
    async with httpx2.AsyncClient(
        timeout=timeout, limits=httpx2.Limits(max_connections=64, max_keepalive_connections=64)
    ) as http:
        yield S3Store(config.s3, http)


async def _environment(config: Config) -> goenv.GoEnvironment:
    """What the go command is set to; where everything is said, no go command is needed for public modules."""
    sumdb = config.sumdb or ""
    if config.upstream and not config.private and (sumdb == "off" or "+" in sumdb):
        return goenv.GoEnvironment(config.upstream, sumdb, Path("/"))
    return await goenv.read(config.go, environment())


def _command(config: Config) -> GoCommand:
    path = environment().get("PATH", "/usr/local/bin:/usr/bin:/bin")
    command = GoCommand(config.go, config.root / "vcs", path, config.credentials.absolute(), config.limits)
    command.prepare()
    return command


def _upstreams(text: str, http: aiohttp.ClientSession, only: Folder | None) -> list[tuple[Upstream | Folder, bool]]:
    if only is not None:
        return [(only, False)]
    found: list[tuple[Upstream | Folder, bool]] = []
    for link in chain.parse(text):
        if link.word.startswith("file://"):
            found.append((Folder.at(link.word), link.on_any_error))
        elif link.word not in ("direct", "off"):
            found.append((Upstream(link.word, http), link.on_any_error))
    return found


def _elsewhere(upstreams: Sequence[tuple[Upstream | Folder, bool]]) -> Callable[[Ask], str]:
    def address(wanted: Ask) -> str:
        for source, _ in upstreams:
            if isinstance(source, Upstream):
                return source.public_address(wanted)
        raise NotFound(f"{wanted.label} is not served by this proxy, and there is no other")

    return address


def _database(
    config: Config,
    go: goenv.GoEnvironment,
    upstreams: Sequence[tuple[Upstream | Folder, bool]],
    http: aiohttp.ClientSession,
    store: FullStore,
    once: Once,
) -> SumDB | None:
    known = goenv.database(config.sumdb if config.sumdb is not None else go.sumdb, go.root)
    if known is None:
        return None
    name = known.verifier.name
    own = Upstream(known.url or f"https://{name}", http)
    remote = DatabaseAddress(name, upstreams, own, only_own=known.url is not None)
    return SumDB(known.verifier, remote, store, once)


def _databases(sources: Sources, database: SumDB | None, notary: Notary, proxy: service.Proxy) -> SumDatabases:
    async def confirmed(module: str, version: str) -> tuple[str, str] | None:
        if database is None or sources.by_notary(module):
            return None
        return await database.hashes(module, version)

    async def fetch(module: str, version: str) -> None:
        _ = await proxy.verify(ask(module, version, Kind.zip))
        # A zip that was here before the notary was asked about it has its hash beside it.
        if not await notary.knows(module, version):
            await notary.record(module, version, await proxy.zip_hash(module, version))

    known: dict[str, Database] = {notary.name: NotaryDatabase(notary, confirmed, fetch)}
    if database is not None:
        known[database.name] = PublicDatabase(database, sources, notary.key)
    return SumDatabases(known)


def _recorded(sources: Sources, database: SumDB | None, notary: Notary) -> Recorded:
    async def recorded(module: str, version: str) -> str | None:
        if database is None or sources.by_notary(module):
            return notary.recorded(module, version)
        first, mod = await database.hashes(module, version.removesuffix("/go.mod"))
        return mod if version.endswith("/go.mod") else first

    return recorded


def _vouches(sources: Sources, database: SumDB | None, notary: Notary) -> Callable[[str], str]:
    return lambda module: notary.name if database is None or sources.by_notary(module) else database.name


def _returns(sources: Sources, recorded: Recorded, proxy: service.Proxy) -> Callable[[Ask], Awaitable[None]]:
    async def returns(wanted: Ask) -> None:
        if sources.by_notary(wanted.module):
            raise Conflict("only the notary vouches for it")
        if await recorded(wanted.module, wanted.version) != await proxy.kept_hash(wanted):
            raise Conflict("its hash is not the one on record")
        try:
            async with sources.source(wanted.module).zip(wanted):
                """The upstream has begun to send it; that is all we wanted to know."""
        except NotFound as error:
            raise Conflict("the upstream has it no more") from error

    return returns


@asynccontextmanager
async def bounded(goproxy: Goproxy, config: Config) -> AsyncIterator[None]:
    """Until the end of the block store and clones are kept below these limits, and without what killed processes left.

    One proxy's at a time for a store.
    """
    async with Tasks("bounds") as tasks:
        tasks.forever("leftovers", _sweep(config.root))
        if config.max_bytes is not None:
            tasks.forever("eviction", _evict(goproxy.eviction, config.max_bytes))
        if isinstance(goproxy.direct, VersionControl):
            tasks.forever("clones", goproxy.direct.bound())
        yield


async def _sweep(root: Path) -> None:
    while True:
        # Again and again: what was being written when the process before us was killed is too young at our start.
        await leftovers.swept(root)
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _evict(eviction: Eviction, max_bytes: int) -> None:
    while True:
        try:
            await eviction.run(max_bytes)
        except MooringError as error:
            log.warning("eviction failed", error=error.detail)
        await asyncio.sleep(_EVICT_EVERY_S)


def serve(config: Config, address: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve in the foreground until a signal says stop; `announce` gets the address once it answers."""
    to_stdout()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(config, address, port, announce))


async def _until_signal(config: Config, address: str, port: int, announce: Callable[[str], None]) -> None:
    lifetime = Lifetime(None)
    lifetime.watch()
    async with serving(config, address, port) as served:
        announce(f"Go module proxy ready: GOPROXY={served.url}")
        await lifetime.ended()


@dataclass(frozen=True, slots=True)
class Served:
    """A proxy that answers at `url`."""

    url: str
    goproxy: Goproxy


@asynccontextmanager
async def serving(config: Config, address: str, port: int) -> AsyncIterator[Served]:
    """Serve until the end of the block; answers under way get ten seconds then.

    Raises:
        Misconfigured: the address or the certificate cannot be used; or as `build`.
    """
    with _listener(address, port) as listener:
        host, bound = listener.getsockname()[:2]
        scheme = "https" if config.tls_certificate else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"
        tls = encryption(config.tls_certificate, config.tls_key)
        async with (
            build(config) as goproxy,
            counted(goproxy.telemetry.tallies, config.root),
            bounded(goproxy, config),
            answering(goproxy.app, listener, tls, goproxy.hits),
        ):
            yield Served(url, goproxy)


@asynccontextmanager
async def counted(tallies: Tallies, root: Path) -> AsyncIterator[None]:
    """What is counted until the end of the block goes on from, and into, a file of the store's folder."""
    async with Tasks("tallies") as tasks, kept(tallies, root / "tallies", tasks):
        yield


def _listener(address: str, port: int) -> socket.socket:
    if not address:
        # For Python it is every address of the machine: a script's empty variable would open it to the network.
        raise Misconfigured("an address to listen on is needed; 0.0.0.0 is every one of this machine", field="bind")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), backlog=BACKLOG, family=family)
    except OSError as error:
        # Python adds to the text what it was doing.
        why = (error.strerror or str(error)).partition(" (while ")[0]
        raise Misconfigured(f"cannot listen on {address} port {port}: {why}", field="port") from error
