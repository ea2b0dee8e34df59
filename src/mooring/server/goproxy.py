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
from mooring.goproxy.databases import DatabaseAddress, SumDatabases
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.flight import Once
from mooring.goproxy.names import matches_any
from mooring.goproxy.ports import Source, Verification
from mooring.goproxy.service import Parts, Proxy
from mooring.goproxy.sumdb import PublicRecord, SumDB
from mooring.goproxy.upstream import Upstream, client
from mooring.goproxy.verification import Unverified
from mooring.server.lifetime import Lifetime
from mooring.settings import environment


@dataclass(frozen=True, slots=True)
class Goproxy:
    """A proxy that is ready to serve."""

    app: App
    proxy: Proxy
    store: DiskStore


@asynccontextmanager
async def build(config: Config) -> AsyncIterator[Goproxy]:
    """A proxy as configured, until the end of the block.

    Raises:
        Misconfigured, InvalidInput: a setting cannot work; says which.
    """
    go = await goenv.read(config.go, environment())
    store = DiskStore(config.root)
    store.prepare()
    async with client() as http, Tasks("goproxy") as tasks:
        upstreams = _upstreams(config.upstream or go.proxy, http)
        database = _database(config, go, upstreams, http, store, Once(tasks))
        public: Source = chain.Chain(list(upstreams))
        verified: Verification = PublicRecord(database) if database else Unverified()

        def verification(module: str) -> Verification:
            return Unverified() if matches_any(config.nosumdb, module) else verified

        parts = Parts(store, store.spool, lambda _module: public, verification)
        proxy = Proxy(parts, tasks, lifetimes=config.lifetimes)
        databases = SumDatabases([database] if database else [], [database.name] if database else [])
        yield Goproxy(App(proxy, databases), proxy, store)


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
