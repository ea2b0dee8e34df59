"""Backends that are named: the sink behind gets addresses, since nginx asks no resolver while it serves.

A name that cannot be looked up keeps the addresses that it had; without any its backend is left out until it has some.
A change of the table waits for no resolver.
"""

import asyncio
import ipaddress
import math
import re
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import structlog

from mooring.errors import MooringError
from mooring.model.grants import Grants
from mooring.model.routes import PORT, Backend, BackendTls, Filters, Route
from mooring.routes.ports import Delta, Revision, RouteKey, RouteSink

log = structlog.get_logger(__name__)

REFRESH_S = 30.0
"""Between look-ups: the usual least lifetime of a record that is meant to change."""
RETRY_S = 1.0
MOST_ADDRESSES = 8
"""Of one name; a larger answer says nothing more about where to balance to."""
_AT_ONCE = 8
_NUMERIC = re.compile(r"[0-9.]+|\[.*")

Lookup = Callable[[str], tuple[str, ...]]
"""The addresses of a name. Raises `OSError` when it has none or cannot be asked for."""


def system_lookup(name: str) -> tuple[str, ...]:
    """What the machine's resolver says (getaddrinfo(3)). Raises `OSError`."""
    return tuple(str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))


def is_elsewhere(address: str) -> bool:
    """Whether a name may lead there: not to this machine itself, nor to its cloud's metadata.

    Who publishes a route does not own the name's records: whoever does could point it at Redis, or at us. An address
    of this machine can be written as `localhost` or as a number.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return not (ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast)


class Names:
    """A `RouteSink` in front of `sink`. `run` looks names up, again every `refresh_s` seconds."""

    def __init__(
        self,
        sink: RouteSink,
        *,
        lookup: Lookup = system_lookup,
        allowed: Callable[[str], bool] = is_elsewhere,
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._sink = sink
        self._lookup = lookup
        self._allowed = allowed
        self._refresh_s = refresh_s
        self._routes: dict[RouteKey, Route] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        self._failed: dict[str, str] = {}
        self._behind: set[str] = set()
        self._revision: Revision | None = None
        self._turn = asyncio.Lock()
        self._unknown = asyncio.Event()

    async def apply(self, revision: Revision, delta: Delta) -> None:
        named = {key: route for key, route in delta.upserts if _names(route)}
        async with self._turn:
            await self._sink.apply(revision, self._resolved(delta, named))
            self._revision = revision
            gone = self._routes if delta.complete else [*delta.deletes, *(key for key, _ in delta.upserts)]
            for key in list(gone):
                self._routes.pop(key, None)
            self._routes |= named
        if any(name not in self._known and name not in self._failed for name in _all(named.values())):
            self._unknown.set()

    async def grant(self, grants: Grants) -> None:
        await self._sink.grant(grants)

    async def applied(self) -> Revision | None:
        return await self._sink.applied()

    def problems(self) -> tuple[str, ...]:
        """Which names have no address now, a line each, for a person."""
        return tuple(f"the backend {name} has no address: {why}" for name, why in sorted(self._failed.items()))

    async def run(self) -> None:
        """Look names up, for ever."""
        loop = asyncio.get_running_loop()
        refresh_at = -math.inf
        while True:
            due = loop.time() >= refresh_at
            if due:
                refresh_at = loop.time() + self._refresh_s
            await self._look_up(due=due)
            await self._catch_up()
            wait_s = RETRY_S if self._behind else max(0.0, refresh_at - loop.time())
            try:
                async with asyncio.timeout(wait_s):
                    await self._unknown.wait()
            except TimeoutError:
                continue

    async def _look_up(self, *, due: bool) -> None:
        self._unknown.clear()
        wanted = _all(self._routes.values())
        for forgotten in (self._known.keys() | self._failed.keys()) - wanted:
            self._known.pop(forgotten, None)
            self._failed.pop(forgotten, None)
        asked = sorted(wanted if due else wanted - self._known.keys() - self._failed.keys())
        if asked:
            for name, found in zip(asked, await asyncio.to_thread(self._ask, asked), strict=True):
                self._learn(name, found)

    def _ask(self, names: list[str]) -> list[tuple[str, ...] | str]:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="names") as pool:
            return list(pool.map(self._answer, names))

    def _answer(self, name: str) -> tuple[str, ...] | str:
        try:
            found = sorted({address for address in self._lookup(name) if self._allowed(address)})
        except (OSError, UnicodeError) as error:
            return str(error)
        return tuple(found[:MOST_ADDRESSES]) or "it leads to this machine itself, which only a number or localhost may"

    def _learn(self, name: str, found: tuple[str, ...] | str) -> None:
        if isinstance(found, str):
            if name not in self._failed:
                log.warning("a backend's name has no address", name=name, reason=found)
            self._failed[name] = found
            return
        self._failed.pop(name, None)
        if self._known.get(name) != found:
            log.info("a backend's name has other addresses", name=name, addresses=found)
            self._known[name] = found
            self._behind.add(name)

    async def _catch_up(self) -> None:
        """Send the routes whose names lead elsewhere now, at the revision that is live."""
        async with self._turn:
            changed = {key: route for key, route in self._routes.items() if self._behind & _names(route)}
            if changed and self._revision is not None:
                delta = self._resolved(Delta(tuple(changed.items())), changed)
                try:
                    await self._sink.apply(self._revision, delta)
                except MooringError as error:
                    log.warning("new addresses are not in use yet", reason=error.detail)
                    return
            self._behind.clear()

    def _resolved(self, delta: Delta, named: dict[RouteKey, Route]) -> Delta:
        if not named:
            return delta
        upserts = tuple((key, self._route(route) if key in named else route) for key, route in delta.upserts)
        return replace(delta, upserts=upserts)

    def _route(self, route: Route) -> Route:
        found = [(backend, self._addresses(backend)) for backend in route.backends]
        # A name with three addresses weighs no more than one beside it that has a single one.
        whole = math.lcm(*(len(addresses) for _, addresses in found if addresses))
        backends = tuple(
            _at(backend, address, backend.weight * whole // len(addresses))
            for backend, addresses in found
            for address in addresses
        )
        return route.model_copy(update={"backends": backends, "filters": self._filters(route.filters)})

    def _filters(self, filters: Filters) -> Filters:
        mirror = filters.mirror
        if mirror is None:
            return filters
        # Nobody waits for a copy: without an address there is none, and one address is enough.
        found = next((_at(mirror.backend, at, 1) for at in self._addresses(mirror.backend)), None)
        kept = None if found is None else mirror.model_copy(update={"backend": found})
        return filters.model_copy(update={"mirror": kept})

    def _addresses(self, backend: Backend) -> tuple[str | None, ...]:
        name = name_of(backend)
        return (None,) if name is None else self._known.get(name, ())


def name_of(backend: Backend) -> str | None:
    """The name that must be looked up, None when its address is a number, `localhost` or something else."""
    if backend.address is None:
        return None
    host = backend.address.rpartition(":")[0]
    return None if host == "localhost" or _NUMERIC.fullmatch(host) else host


def _at(backend: Backend, address: str | None, weight: int) -> Backend:
    if address is None or backend.address is None:
        return backend if weight == backend.weight else backend.model_copy(update={"weight": weight})
    name, _, port = backend.address.rpartition(":")
    host = f"[{address}]" if ":" in address else address
    tls = backend.tls
    if backend.protocol == "https" and (tls is None or tls.server_name is None):
        # The certificate is for the name, not for where it leads today.
        tls = BackendTls(server_name=name.lower(), verify=tls.verify if tls else True)
    assert port == PORT or port.isdecimal()  # noqa: S101 - the model has checked it
    return backend.model_copy(update={"address": f"{host}:{port}", "weight": weight, "tls": tls})


def _names(route: Route) -> set[str]:
    return {name for backend in route.targets() if (name := name_of(backend))}


def _all(routes: Iterable[Route]) -> set[str]:
    return {name for route in routes for name in _names(route)}
