"""The role `goproxy`: picks the parts of a module proxy and serves it, alone or behind the gateway."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import httpx2
import uvicorn
import uvloop

from mooring.control.tasks import Tasks
from mooring.goproxy import chain, goenv
from mooring.goproxy.asgi import App
from mooring.goproxy.config import Config
from mooring.goproxy.databases import Database, DatabaseAddress, SumDatabases
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.flight import Once
from mooring.goproxy.gocommand import GoCommand
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.notary import Notary
from mooring.goproxy.service import Parts, Proxy
from mooring.goproxy.sources import NotaryDatabase, Sources
from mooring.goproxy.sumdb import PublicRecord, SumDB
from mooring.goproxy.upstream import Upstream, client
from mooring.goproxy.vcs import VersionControl
from mooring.server.lifetime import Lifetime
from mooring.settings import environment


@dataclass(frozen=True, slots=True)
class Goproxy:
    """A proxy that is ready to serve."""

    app: App
    proxy: Proxy
    store: DiskStore
    notary: Notary


@asynccontextmanager
async def build(config: Config) -> AsyncIterator[Goproxy]:
    """A proxy as configured, until the end of the block.

    Raises:
        Misconfigured, InvalidInput: a setting cannot work; says which.
    """
    go = await goenv.read(config.go, environment())
    store = DiskStore(config.root)
    store.prepare()
    ledger = await asyncio.to_thread(Ledger, config.root / "notary", config.notary)
    async with client() as http, Tasks("goproxy") as tasks:
        upstreams = _upstreams(config.upstream or go.proxy, http)
        database = _database(config, go, upstreams, http, store, Once(tasks))

        async def mod_hash(module: str, version: str) -> str:
            return await proxy.mod_hash(module, version)

        notary = Notary(ledger, mod_hash)
        sources = Sources(
            private=config.private,
            unrecorded=config.nosumdb,
            public=chain.Chain(list(upstreams)),
            direct=VersionControl(_command(config), Once(tasks)),
            database=PublicRecord(database) if database else None,
            notary=notary,
        )
        proxy = Proxy(
            Parts(store, store.spool, sources.source, sources.verification), tasks, lifetimes=config.lifetimes
        )
        databases = _databases(sources, database, notary, proxy)
        yield Goproxy(App(proxy, databases), proxy, store, notary)


def _command(config: Config) -> GoCommand:
    path = environment().get("PATH", "/usr/local/bin:/usr/bin:/bin")
    command = GoCommand(config.go, config.root / "vcs", path, config.credentials, config.limits)
    command.prepare()
    command.link_netrc()
    return command


def _databases(sources: Sources, database: SumDB | None, notary: Notary, proxy: Proxy) -> SumDatabases:
    async def confirmed(module: str, version: str) -> tuple[str, str] | None:
        if database is None or sources.by_notary(module):
            return None
        return await database.hashes(module, version)

    async def fetch(module: str, version: str) -> None:
        await proxy.ensure(ask(module, version, Kind.zip))
        # A zip that was here before the notary was asked about it has its hash beside it.
        if not await notary.knows(module, version):
            await notary.record(module, version, await proxy.zip_hash(module, version))

    known: dict[str, Database] = {notary.name: NotaryDatabase(notary, confirmed, fetch)}
    if database is not None:
        known[database.name] = database
    return SumDatabases(known)


def _upstreams(text: str, http: httpx2.AsyncClient) -> list[tuple[Upstream, bool]]:
    links = chain.parse(text)
    return [(Upstream(link.word, http), link.on_any_error) for link in links if link.word not in ("direct", "off")]


def _database(
    config: Config,
    go: goenv.GoEnvironment,
    upstreams: list[tuple[Upstream, bool]],
    http: httpx2.AsyncClient,
    store: DiskStore,
    once: Once,
) -> SumDB | None:
    known = goenv.database(config.sumdb if config.sumdb is not None else go.sumdb, go.root)
    if known is None:
        return None
    name = known.verifier.name
    own = Upstream(known.url or f"https://{name}", http)
    remote = DatabaseAddress(name, upstreams, own, only_own=known.url is not None)
    return SumDB(known.verifier, remote, store, once)


def serve(config: Config, address: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve in the foreground until a signal says stop; `announce` gets the address once it answers."""
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
    """Serve until the end of the block; answers under way get ten seconds then."""
    listener = socket.create_server((address, port), backlog=1024, family=_family(address))
    with listener:
        async with build(config) as goproxy, Tasks("server") as tasks:
            server = _Server(
                uvicorn.Config(
                    goproxy.app,
                    http="httptools",
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_config=None,
                    server_header=False,
                    timeout_graceful_shutdown=10,
                )
            )
            task = tasks.spawn("uvicorn", server.serve(sockets=[listener]))
            host, bound = listener.getsockname()[:2]
            yield Served(f"http://{f'[{host}]' if ':' in host else host}:{bound}", goproxy)
            server.should_exit = True
            await task


class _Server(uvicorn.Server):
    """Signals are the role's own business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
