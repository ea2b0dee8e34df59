"""The table's incremental work agrees with the pure merge, and its subscribers with the table."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import InvalidInput
from mooring.model.grants import Grants, SigningKey
from mooring.model.routes import Match, PathMatch, Route
from mooring.routes.merge import Section, match_key, merge
from mooring.routes.ports import Conflict, Delta, Revision, RouteKey, SectionChange
from mooring.routes.table import RouteTable, Subscription
from support.routes import changes, serving, stopped

KEY = SigningKey("k", b"0" * 32, 9)


class Replica:
    """What a subscriber knows."""

    def __init__(self) -> None:
        self.routes: dict[RouteKey, Route] = {}
        self.grants: Grants | None = None
        self.revision: Revision | None = None
        self.deltas: list[Delta] = []

    def apply(self, revision: Revision, delta: Delta) -> None:
        """Apply as a sink does."""
        if delta.complete:
            self.routes.clear()
        for key in delta.deletes:
            self.routes.pop(key, None)
        self.routes.update(delta.upserts)
        self.grants = delta.grants or self.grants
        self.revision = revision
        self.deltas.append(delta)

    async def catch_up(self, subscription: Subscription) -> None:
        """Take everything that is owed now."""
        while True:
            try:
                async with asyncio.timeout(0.01):
                    self.apply(*await anext(subscription))
            except TimeoutError:
                return


def from_scratch(sequence: Sequence[SectionChange]) -> dict[str, Section]:
    """The sections after the changes, computed the plain way."""
    sections: dict[str, Section] = {}
    for change in sequence:
        old = {} if change.complete else dict(sections.get(change.source, Section(0, {})).routes)
        for name in change.deletes:
            old.pop(name, None)
        sections[change.source] = Section(change.rank or 0, old | {route.name: route for route in change.upserts})
    return sections


@given(st.lists(changes, max_size=12))
def test_any_changes_give_the_table_that_merging_from_scratch_gives(sequence: list[SectionChange]) -> None:
    """Routes, conflicts, sections and grants are those of the definition, after every single change."""
    table = RouteTable()
    for n, change in enumerate(sequence, start=1):
        table.apply(change, change.rank or 0)
        sections = from_scratch(sequence[:n])
        merged = merge(sections)
        assert dict(table.routes()) == merged.routes
        assert table.conflicts() == merged.conflicts
        assert {name: (s.rank, dict(s.routes)) for name, s in table.sections().items()} == {
            name: (s.rank, dict(s.routes)) for name, s in sections.items()
        }
    assert table.grants == next((c.grants for c in reversed(sequence) if c.grants is not None), None)


@given(st.lists(changes, max_size=12))
def test_the_deltas_applied_to_a_replica_give_the_table(sequence: list[SectionChange]) -> None:
    """Each delta has exactly what changed, an empty one changes no revision, and revisions count up by one."""
    table = RouteTable()
    replica = Replica()
    for change in sequence:
        before, number = dict(replica.routes), table.revision.number
        delta = table.apply(change, change.rank or 0)
        replica.apply(table.revision, delta)
        assert replica.routes == dict(table.routes())
        assert all(before.get(key) != route for key, route in delta.upserts)
        assert all(key in before for key in delta.deletes)
        assert not {key for key, _ in delta.upserts} & set(delta.deletes)
        assert table.revision.number == number + (delta != Delta())
    assert replica.grants == table.grants


@given(st.lists(st.tuples(changes, st.booleans()), max_size=12), st.integers(0, 12))
def test_a_subscriber_of_any_speed_ends_with_the_table(
    sequence: list[tuple[SectionChange, bool]], joins_at: int
) -> None:
    """Whenever it joins and however seldom it looks: a snapshot first, and at last what the table has."""

    async def scenario() -> None:
        table, replica, subscription = RouteTable(), Replica(), None
        for n, (change, looks) in enumerate(sequence):
            if n == joins_at:
                subscription = table.subscribe()
            table.apply(change, change.rank or 0)
            if looks and subscription is not None:
                replica.apply(*await anext(subscription)) if subscription._wake.is_set() else None
        subscription = subscription or table.subscribe()
        await replica.catch_up(subscription)
        assert replica.deltas[0].complete
        assert sum(delta.complete for delta in replica.deltas) == 1
        assert replica.routes == dict(table.routes())
        assert replica.grants == table.grants
        assert replica.revision == table.revision
        subscription.close()

    asyncio.run(scenario())


async def test_a_slow_subscriber_costs_bounded_memory() -> None:
    """Routes that come and go by the thousands under new names leave it a snapshot, not a list of them all."""
    table = RouteTable()
    table.apply(SectionChange("file", (stopped("stays"),)), 0)
    with table.subscribe() as subscription:
        await anext(subscription)
        for n in range(10_000):
            table.apply(SectionChange("redis", (stopped(f"r{n}"),), complete=True), 0)
            assert len(subscription._pending) < 5000
        revision, delta = await anext(subscription)
        assert delta.complete
        assert {key.name for key, _ in delta.upserts} == {"stays", "r9999"}
        assert revision == table.revision


async def test_a_cancelled_wait_loses_nothing() -> None:
    """A subscriber that waits with a deadline gets the change that comes just then the next time."""
    table = RouteTable()
    with table.subscribe() as subscription:
        await anext(subscription)
        for n in range(50):
            waiting = asyncio.timeout(0)
            try:
                async with waiting:
                    table.apply(SectionChange("file", (stopped(f"r{n}"),)), 0)
                    await asyncio.sleep(0)
                    await anext(subscription)
            except TimeoutError:
                _, delta = await anext(subscription)
                assert delta.upserts


async def test_a_delta_that_could_not_be_used_is_owed_again() -> None:
    """Put back, it comes again with the newest state and what else changed."""
    table = RouteTable()
    with table.subscribe() as subscription:
        await anext(subscription)
        table.apply(SectionChange("file", (stopped("a"), stopped("b")), grants=Grants(keys=(KEY,))), 0)
        _, failed = await anext(subscription)
        table.apply(SectionChange("file", (stopped("c"),), deletes=("a",)), 0)
        subscription.note(failed)
        _, again = await anext(subscription)
        assert {key.name for key, _ in again.upserts} == {"b", "c"}
        assert again.deletes == (RouteKey("file", "a"),)
        assert again.grants == Grants(keys=(KEY,))
        subscription.restart()
        _, whole = await anext(subscription)
        assert whole.complete
        assert whole.grants == Grants(keys=(KEY,))


def test_the_winner_is_found_by_rank_then_order_then_name_then_source() -> None:
    """Each rule decides only where the ones before it are equal."""

    def winner(*claims: tuple[str, int, Route]) -> RouteKey:
        table = RouteTable()
        for source, rank, route in claims:
            table.apply(SectionChange(source, (route,)), rank)
        (key,) = table.routes()
        assert [c.winner for c in table.conflicts()] == [key]
        return key

    host = {"host": "one.localhost"}
    late, early = stopped("late", order=5, **host), stopped("z-early", order=-5, **host)
    assert winner(("file", 1, late), ("redis", 2, early)) == RouteKey("file", "late")
    assert winner(("file", 1, late), ("redis", 1, early)) == RouteKey("redis", "z-early")
    assert winner(("redis", 1, stopped("a", **host)), ("file", 1, stopped("b", **host))) == RouteKey("redis", "a")
    assert winner(("redis", 1, stopped("a", **host)), ("file", 1, stopped("a", **host))) == RouteKey("file", "a")


def test_a_loser_is_served_when_the_winner_goes() -> None:
    """Nothing of it was lost: it takes the place in the same delta."""
    table = RouteTable()
    table.apply(SectionChange("workspaces", (serving("x"),)), 1)
    table.apply(SectionChange("file", (serving("mine", host="x.localhost"),)), 2)
    assert table.conflicts() == (Conflict(RouteKey("workspaces", "x"), RouteKey("file", "mine")),)
    delta = table.apply(SectionChange("workspaces", complete=True), 1)
    assert delta.deletes == (RouteKey("workspaces", "x"),)
    assert [key for key, _ in delta.upserts] == [RouteKey("file", "mine")]
    assert table.conflicts() == ()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"path": "/a"}, {"path": "/a/"}, True),
        ({"path": "/a", "path_match": PathMatch.exact}, {"path": "/a/", "path_match": PathMatch.exact}, False),
        ({"path": "/a"}, {"path": "/a", "path_match": PathMatch.exact}, False),
        ({"listener": "main"}, {"listener": "other"}, False),
        (
            {"matches": (Match(kind="header", name="A", value="1"), Match(kind="query", name="q"))},
            {"matches": (Match(kind="query", name="q"), Match(kind="header", name="a", value="1"))},
            True,
        ),
        ({"matches": (Match(kind="query", name="q"),)}, {"matches": (Match(kind="query", name="Q"),)}, False),
        ({"matches": (Match(kind="query", name="q"),)}, {"matches": (Match(kind="query", name="q", value=""),)}, False),
    ],
)
def test_routes_conflict_when_they_match_the_same(
    one: dict[str, object], other: dict[str, object], *, same: bool
) -> None:
    """Spelling makes no difference where it makes none to the requests that match."""
    keys = [match_key(stopped("r", **{"host": "h.localhost"} | more)) for more in (one, other)]
    assert (keys[0] == keys[1]) is same


def test_two_routes_of_one_name_are_refused_as_a_whole() -> None:
    """The change is not applied in part."""
    table = RouteTable()
    before = table.revision
    with pytest.raises(InvalidInput, match="same name"):
        table.apply(SectionChange("file", (stopped("b"), stopped("a"), stopped("a", path="/x"))), 0)
    assert not table.routes()
    assert table.revision == before


def test_two_tables_have_different_epochs() -> None:
    """A revision of an earlier life of a process is never taken for one of this."""
    assert RouteTable().revision.epoch != RouteTable().revision.epoch


def test_a_change_costs_the_same_in_a_large_table() -> None:
    """One change among 10,000 routes takes about what it takes among 100; the best of several tries counts."""

    def best(size: int) -> float:
        table = RouteTable()
        table.apply(SectionChange("file", tuple(stopped(f"r{n}") for n in range(size)), complete=True), 0)
        begun, times = 0.0, []
        for n in range(200):
            change = SectionChange("file", (stopped("r1", order=n % 2 + 1),))
            begun = time.perf_counter()
            table.apply(change, 0)
            times.append(time.perf_counter() - begun)
        return min(times)

    # A table-sized copy or scan would cost a hundred times more.
    assert best(10_000) < 20 * best(100)
