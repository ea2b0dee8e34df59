"""Backends that are named by host names."""

import asyncio
import threading

import pytest

from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.gateway.memory import MemorySink
from mooring.gateway.names import Names, is_elsewhere, system_lookup
from mooring.model.routes import Backend, BackendTls, Filters, Mirror, Route
from mooring.routes.ports import Delta, Revision, RouteKey

KEY = RouteKey("test", "app")


class Resolver:
    """Names in the test's hands."""

    def __init__(self, **names: tuple[str, ...]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.hold = threading.Event()
        self.hold.set()
        self.asked = 0

    def __call__(self, name: str) -> tuple[str, ...]:
        self.asked += 1
        self.hold.wait(10)
        if name not in self.names:
            raise OSError("no such name")
        return self.names[name]


def route(*backends: Backend) -> Route:
    """The route of every test."""
    return Route(name="app", host="app.test", backends=backends)


def backend(address: str, weight: int = 1, **more: object) -> Backend:
    """A backend at that address."""
    return Backend(address=address, weight=weight, **more)  # type: ignore[arg-type]


def addresses(sink: MemorySink) -> list[tuple[str | None, int]]:
    """Where the route leads, with weights."""
    return [(b.address, b.weight) for b in sink.routes()[KEY].backends]


async def becomes(sink: MemorySink, wanted: list[tuple[str, int]]) -> None:
    """Wait until the route leads there."""
    async with asyncio.timeout(10):
        while addresses(sink) != wanted:
            await asyncio.sleep(0.01)


async def test_a_named_backend_gets_its_addresses_and_follows_them() -> None:
    """The route is applied at once; its addresses come as soon as they are known, and again when they change."""
    sink, resolver = MemorySink(), Resolver(app_internal=("192.0.2.2", "192.0.2.1"))
    names = Names(sink, lookup=resolver, refresh_s=0.05)
    async with Tasks("test") as tasks:
        tasks.spawn("names", names.run())
        resolver.hold.clear()
        await names.apply(Revision("e", 1), Delta(((KEY, route(backend("app.internal:80"))),), complete=True))
        assert addresses(sink) == []
        resolver.hold.set()
        await becomes(sink, [("192.0.2.1:80", 1), ("192.0.2.2:80", 1)])
        resolver.names["app.internal"] = ("192.0.2.3", "2001:db8::1")
        await becomes(sink, [("192.0.2.3:80", 1), ("[2001:db8::1]:80", 1)])
        assert await names.applied() == Revision("e", 1)


async def test_a_resolver_that_fails_changes_nothing() -> None:
    """The last addresses stay, and a person is told."""
    sink, resolver = MemorySink(), Resolver(app_internal=("192.0.2.1",))
    names = Names(sink, lookup=resolver, refresh_s=0.05)
    async with Tasks("test") as tasks:
        tasks.spawn("names", names.run())
        await names.apply(Revision("e", 1), Delta(((KEY, route(backend("app.internal:80"))),), complete=True))
        await becomes(sink, [("192.0.2.1:80", 1)])
        del resolver.names["app.internal"]
        async with asyncio.timeout(10):
            while not names.problems():
                await asyncio.sleep(0.01)
        assert names.problems() == ("the backend app.internal has no address: no such name",)
        assert addresses(sink) == [("192.0.2.1:80", 1)]
        await names.apply(Revision("e", 2), Delta(((KEY, route(backend("app.internal:81"))),)))
        assert addresses(sink) == [("192.0.2.1:81", 1)]
        await names.apply(Revision("e", 3), Delta(deletes=(KEY,)))
        async with asyncio.timeout(10):
            while names.problems():
                await asyncio.sleep(0.01)
        assert sink.routes() == {}


async def test_weights_are_those_of_names_not_of_their_addresses() -> None:
    """Three addresses of one name get together what the single one of another gets; numbers are left alone."""
    sink = MemorySink()
    resolver = Resolver(three_test=("192.0.2.1", "192.0.2.2", "192.0.2.3"), one_test=("192.0.2.9",))
    names = Names(sink, lookup=resolver)
    both = route(backend("three.test:80", 2), backend("one.test:80", 1), backend("192.0.2.50:80", 1))
    async with Tasks("test") as tasks:
        tasks.spawn("names", names.run())
        await names.apply(Revision("e", 1), Delta(((KEY, both),), complete=True))
        shared = [(f"192.0.2.{n}:80", 2) for n in (1, 2, 3)]
        await becomes(sink, [*shared, ("192.0.2.9:80", 3), ("192.0.2.50:80", 3)])


async def test_a_certificate_is_checked_against_the_name() -> None:
    """Where a name leads today is not whom its certificate is for."""
    sink = MemorySink()
    names = Names(sink, lookup=Resolver(app_test=("192.0.2.1",)))
    async with Tasks("test") as tasks:
        tasks.spawn("names", names.run())
        https = backend("app.test:443", protocol="https", tls=BackendTls(verify=True))
        await names.apply(Revision("e", 1), Delta(((KEY, route(https)),), complete=True))
        await becomes(sink, [("192.0.2.1:443", 1)])
        assert sink.routes()[KEY].backends[0].tls == BackendTls(server_name="app.test", verify=True)


async def test_an_update_that_fails_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses that came while nginx was away are in use once it is back."""
    monkeypatch.setattr("mooring.gateway.names.RETRY_S", 0.05)

    class Away(MemorySink):
        away = False

        async def apply(self, revision: Revision, delta: Delta) -> None:
            if self.away:
                raise Unavailable("away")
            await super().apply(revision, delta)

    sink, resolver = Away(), Resolver(app_test=("192.0.2.1",))
    names = Names(sink, lookup=resolver, refresh_s=0.05)
    async with Tasks("test") as tasks:
        tasks.spawn("names", names.run())
        await names.apply(Revision("e", 1), Delta(((KEY, route(backend("app.test:80"))),), complete=True))
        await becomes(sink, [("192.0.2.1:80", 1)])
        sink.away = True
        resolver.names["app.test"] = ("192.0.2.2",)
        asked = resolver.asked
        async with asyncio.timeout(10):
            while resolver.asked < asked + 2:
                await asyncio.sleep(0.01)
        sink.away = False
        await becomes(sink, [("192.0.2.2:80", 1)])


async def test_a_name_leads_to_no_service_of_this_machine() -> None:
    """Whoever owns the name's records could point it at Redis or at the metadata: such answers count as none."""
    sink = MemorySink()
    names = Names(sink, lookup=Resolver(evil_test=("127.0.0.1", "::1", "169.254.169.254", "::", "::ffff:127.0.0.1")))
    async with Tasks("test") as tasks:
        tasks.spawn("names", names.run())
        await names.apply(Revision("e", 1), Delta(((KEY, route(backend("evil.test:6379"))),), complete=True))
        async with asyncio.timeout(10):
            while not names.problems():
                await asyncio.sleep(0.01)
        assert addresses(sink) == []


def test_the_machines_own_resolver_is_asked() -> None:
    """A real look-up, of the one name that every machine knows."""
    found = set(system_lookup("localhost"))
    assert found
    assert found <= {"127.0.0.1", "::1"}
    assert not any(map(is_elsewhere, found))
    with pytest.raises(OSError, match=r".+"):
        system_lookup("no name at all")


async def test_a_named_mirror_gets_an_address_and_holds_nobody_up() -> None:
    """The route serves without copies until the mirror's name has an address; then one of them gets the copies."""
    sink, resolver = MemorySink(), Resolver(b_internal=("192.0.2.9", "192.0.2.8"))
    resolver.hold.clear()
    names = Names(sink, lookup=resolver, refresh_s=0.05)
    mirrored = Filters(mirror=Mirror(backend=backend("b.internal:90")))
    copying = Route(name="app", host="app.test", backends=(backend("192.0.2.1:80"),), filters=mirrored)
    async with Tasks("test") as tasks:
        tasks.forever("names", names.run())
        await names.apply(Revision("e", 1), Delta(((KEY, copying),), complete=True))
        assert sink.routes()[KEY].filters.mirror is None
        resolver.hold.set()
        async with asyncio.timeout(10):
            while (mirror := sink.routes()[KEY].filters.mirror) is None:
                await asyncio.sleep(0.01)
        assert mirror.backend.address == "192.0.2.8:90"
        assert addresses(sink) == [("192.0.2.1:80", 1)]
