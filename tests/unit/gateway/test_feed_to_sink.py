"""The feed keeps a sink equal to the table, under thousands of simulated schedules and faults."""

import asyncio
import random

import orjson
import pytest
import structlog

from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.gateway.feed import SINK_S, Feed
from mooring.gateway.memory import MemorySink
from mooring.model.grants import Grants, SigningKey
from mooring.routes.ports import Delta, Revision, RouteKey, SectionChange
from mooring.routes.table import RouteTable
from mooring.routes.wire import route_document
from support.faulty_sink import FaultySink
from support.routes import stopped
from support.simulation import explore, run

NAMES = [f"r{n}" for n in range(8)]


@pytest.fixture(autouse=True)
def logs() -> object:
    """Thousands of intended faults are no news."""
    with structlog.testing.capture_logs() as captured:
        yield captured


async def change_at_random(rng: random.Random, table: RouteTable) -> None:
    """Add, replace and remove routes, and now and then bring other grants."""
    for _ in range(rng.randrange(1, 30)):
        names = rng.sample(NAMES, rng.randrange(4))
        routes = tuple(stopped(name, order=rng.randrange(3)) for name in names)
        grants = Grants(keys=(SigningKey("k", rng.randbytes(32), 1),)) if rng.random() < 0.2 else None
        deletes = tuple(rng.sample(NAMES, 2))
        table.apply(SectionChange("s", routes, deletes, complete=rng.random() < 0.2, grants=grants), 0)
        await asyncio.sleep(rng.choice((0, 0, 0.005, 0.3, 2)))


async def becomes_equal(rng: random.Random) -> None:
    """Whatever the sink did: once it is well, it has the table's routes, grants and revision, and all is said well."""
    table, sink = RouteTable(), FaultySink(rng)
    feed = Feed(table, sink)
    async with Tasks("simulated") as tasks:
        tasks.forever("feed", feed.run())
        tasks.forever("grants", feed.run_grants())
        await change_at_random(rng, table)
        sink.faulty = False
        # Longer than a silent sink is waited for; nothing waits here in truth.
        await asyncio.sleep(2 * SINK_S)
        assert sink.inner.routes() == dict(table.routes())
        assert sink.inner._grants == (table.grants or Grants())
        assert await sink.inner.applied() == table.revision == feed.live
        assert feed.problems() == ()
        assert sink.violations == []


async def what_is_said_live_is_live(rng: random.Random) -> None:
    """At no moment does the feed call a revision live that a sink without lies does not hold."""
    table, sink = RouteTable(), MemorySink()
    feed = Feed(table, sink)
    seen = {table.revision: dict(table.routes())}
    async with Tasks("simulated") as tasks:
        tasks.forever("feed", feed.run())
        for _ in range(20):
            table.apply(SectionChange("s", (stopped(rng.choice(NAMES), order=rng.randrange(3)),)), 0)
            seen[table.revision] = dict(table.routes())
            await asyncio.sleep(rng.choice((0, 0, 0.1)))
            if feed.live is not None and await sink.applied() == feed.live:
                assert sink.routes() == seen[feed.live]


async def a_full_sink_has_what_fits(rng: random.Random) -> None:
    """Small routes are served though big ones do not fit; when there is room again, all of it is live."""
    table = RouteTable()
    big = [stopped(f"big{n}", path="/" + "x" * 3000) for n in range(rng.randrange(1, 5))]
    small = [stopped(name) for name in NAMES]
    room = sum(len(orjson.dumps(route_document(route))) for route in small)
    sink = MemorySink(capacity=room + rng.choice((99, 3299)))
    feed = Feed(table, sink)
    async with Tasks("simulated") as tasks:
        tasks.forever("feed", feed.run())
        routes = big + small
        rng.shuffle(routes)
        for part in (routes,) if rng.random() < 0.5 else [[route] for route in routes]:
            table.apply(SectionChange("s", tuple(part)), 0)
            await asyncio.sleep(rng.choice((0, 0.1, 1)))
        await asyncio.sleep(20)
        if len(sink.routes()) < len(routes):
            assert feed.live != table.revision
            assert "do not fit" in feed.problems()[0]
        table.apply(SectionChange("s", deletes=tuple(route.name for route in big)), 0)
        await asyncio.sleep(20)
        assert sink.routes() == dict(table.routes())
        assert feed.live == table.revision
        assert feed.problems() == ()


@pytest.mark.parametrize(
    ("scenario", "seeds"), [(becomes_equal, 1500), (what_is_said_live_is_live, 500), (a_full_sink_has_what_fits, 500)]
)
def test_every_schedule_ends_with_an_equal_sink(scenario: object, seeds: int) -> None:
    """Each seed is another order and other faults."""
    explore(scenario, seeds=seeds)


def test_a_fresh_sink_gets_the_whole_table_within_a_second() -> None:
    """A restarted nginx has forgotten everything, and nothing changes meanwhile."""

    async def scenario(_: random.Random) -> None:
        table, sink = RouteTable(), MemorySink()
        table.apply(SectionChange("s", (stopped("a"), stopped("b")), grants=Grants(keys=(SigningKey("k", b"", 1),))), 0)
        async with Tasks("simulated") as tasks:
            tasks.forever("feed", Feed(table, sink).run())
            await asyncio.sleep(5)
            sink.forget()
            await asyncio.sleep(1)
            assert sink.routes() == dict(table.routes())
            assert sink._grants == table.grants

    run(scenario, 0)


def test_one_route_too_many_stops_no_other() -> None:
    """While a big one is refused, changes of others are live at once."""

    async def scenario(_: random.Random) -> None:
        table, sink = RouteTable(), MemorySink(capacity=2000)
        async with Tasks("simulated") as tasks:
            tasks.forever("feed", Feed(table, sink).run())
            table.apply(SectionChange("s", (stopped("a"), stopped("big", path="/" + "x" * 4000))), 0)
            await asyncio.sleep(1)
            for n in range(10):
                table.apply(SectionChange("s", (stopped("a", order=n), stopped(f"b{n}"))), 0)
                await asyncio.sleep(0.05)
                assert sink.routes()[RouteKey("s", "a")].order == n
                assert RouteKey("s", f"b{n}") in sink.routes()
            assert RouteKey("s", "big") not in sink.routes()

    run(scenario, 0)


def test_a_route_that_does_not_fit_any_more_is_not_served_as_it_was() -> None:
    """Its old address may belong to somebody else by now."""

    async def scenario(_: random.Random) -> None:
        table, sink = RouteTable(), MemorySink(capacity=2000)
        async with Tasks("simulated") as tasks:
            tasks.forever("feed", Feed(table, sink).run())
            table.apply(SectionChange("s", (stopped("a"), stopped("b"))), 0)
            await asyncio.sleep(1)
            table.apply(SectionChange("s", (stopped("a", path="/" + "x" * 4000),)), 0)
            await asyncio.sleep(1)
            assert set(sink.routes()) == {RouteKey("s", "b")}

    run(scenario, 0)


def test_a_revocation_waits_for_no_table() -> None:
    """Grants that come while a table is sent are live at once, and those that the table began with undo none."""

    class Slow(MemorySink):
        async def apply(self, revision: Revision, delta: Delta) -> None:
            await asyncio.sleep(30)
            await super().apply(revision, delta)

    async def scenario(_: random.Random) -> None:
        table, sink = RouteTable(), Slow()
        key = SigningKey("k", b"", 1)
        before, after = Grants(keys=(key,)), Grants(keys=(key,), revoked=(("s1", 9),))
        table.apply(SectionChange("s", (stopped("a"),), grants=before), 0)
        async with Tasks("simulated") as tasks:
            feed = Feed(table, sink)
            tasks.forever("feed", feed.run())
            tasks.forever("grants", feed.run_grants())
            await asyncio.sleep(1)
            assert sink._grants == before
            table.apply(SectionChange("s", grants=after), 0)
            await asyncio.sleep(1)
            assert sink._grants == after
            assert sink.routes() == {}
            await asyncio.sleep(120)
            assert sink._grants == after
            assert feed.live == table.revision

    run(scenario, 0)


def test_grants_that_fail_put_no_table_in_doubt() -> None:
    """A sink that takes no grants for a while has them once it does, and is sent its table no second time for that."""

    class Deaf(MemorySink):
        is_deaf = False
        whole = 0

        async def apply(self, revision: Revision, delta: Delta) -> None:
            self.whole += delta.complete
            await super().apply(revision, delta)

        async def grant(self, grants: Grants) -> None:
            if self.is_deaf:
                raise Unavailable("not now")
            await super().grant(grants)

    async def scenario(_: random.Random) -> None:
        table, sink = RouteTable(), Deaf()
        table.apply(SectionChange("s", (stopped("a"),), grants=Grants()), 0)
        async with Tasks("simulated") as tasks:
            feed = Feed(table, sink)
            tasks.forever("feed", feed.run())
            tasks.forever("grants", feed.run_grants())
            await asyncio.sleep(1)
            sink.is_deaf = True
            table.apply(SectionChange("s", grants=Grants(keys=(SigningKey("k", b"", 1),))), 0)
            await asyncio.sleep(1)
            assert feed.problems() == ("not now",)
            assert feed.live == table.revision
            sink.is_deaf = False
            await asyncio.sleep(1)
            assert sink._grants == table.grants
            assert feed.problems() == ()
            assert sink.whole == 1

    run(scenario, 0)
