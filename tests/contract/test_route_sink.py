"""What every route sink promises, run on each of them."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mooring.errors import Conflict, LimitExceeded
from mooring.model.grants import Grants, TokenGrant
from mooring.model.routes import Access, Filters, HeaderFilter, PathMatch, Redirect, Route
from mooring.routes.ports import Delta, Revision, RouteKey
from support.sinks import AMPLE, SINKS, SMALL, SinkUnderTest


@pytest.fixture(params=SINKS)
async def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SinkUnderTest]:
    """Each registered sink, with room for every table of these tests."""
    async with SINKS[request.param](tmp_path, AMPLE) as started:
        yield started


@pytest.fixture(params=SINKS)
async def small(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SinkUnderTest]:
    """Each registered sink, with little room."""
    async with SINKS[request.param](tmp_path, SMALL) as started:
        yield started


def route(name: str, *, host: str = "a.test", path: str = "/", to: str = "", **more: object) -> Route:
    """A public route that answers with a redirect to `/<to>`: visible without any backend."""
    filters = Filters(redirect=Redirect(path=f"/{to or name}"))
    return Route(
        **{"name": name, "host": host, "path": path, "filters": filters, "access": Access(kind="public")} | more
    )


def upserts(*routes: Route, source: str = "test") -> tuple[tuple[RouteKey, Route], ...]:
    """Entries of a delta."""
    return tuple((RouteKey(source, r.name), r) for r in routes)


def deletes(*names: str) -> tuple[RouteKey, ...]:
    """Keys of a delta."""
    return tuple(RouteKey("test", name) for name in names)


def token(secret: str) -> TokenGrant:
    """The grant of that bearer token."""
    return TokenGrant(hashlib.sha256(secret.encode()).hexdigest(), "someone", "session")


async def begin(under_test: SinkUnderTest, *routes: Route) -> None:
    """Apply a first table as revision e/1."""
    await under_test.sink.apply(Revision("e", 1), Delta(upserts(*routes), complete=True))


async def test_a_fresh_sink_has_no_revision(under_test: SinkUnderTest) -> None:
    """Before the first table nothing is live, and the sink says so."""
    assert await under_test.sink.applied() is None
    assert await under_test.location("a.test", "/") is None


async def test_an_applied_table_is_live_at_once(under_test: SinkUnderTest) -> None:
    """When apply returns, the next request sees the table, and applied names its revision."""
    await begin(under_test, route("one"), route("two", host="b.test"))
    assert await under_test.location("a.test", "/") == "/one"
    assert await under_test.location("b.test", "/deep/er") == "/two"
    assert await under_test.location("c.test", "/") is None
    assert await under_test.sink.applied() == Revision("e", 1)


async def test_a_delta_changes_what_it_names_and_nothing_else(under_test: SinkUnderTest) -> None:
    """Added, replaced and removed routes are live together; the others stay."""
    await begin(under_test, route("one"), route("two", host="b.test"), route("three", host="c.test"))
    delta = Delta(upserts(route("one", to="new"), route("four", host="d.test")), deletes("two"))
    await under_test.sink.apply(Revision("e", 2), delta)
    hosts = ("a.test", "b.test", "c.test", "d.test")
    assert [await under_test.location(host, "/") for host in hosts] == ["/new", None, "/three", "/four"]
    assert await under_test.sink.applied() == Revision("e", 2)


async def test_a_route_may_move_to_another_host_and_path(under_test: SinkUnderTest) -> None:
    """The place that a replaced route had before serves it no more."""
    await begin(under_test, route("one", path="/x"))
    await under_test.sink.apply(Revision("e", 2), Delta(upserts(route("one", host="b.test", path="/y"))))
    assert await under_test.location("a.test", "/x") is None
    assert await under_test.location("b.test", "/y") == "/one"


async def test_a_place_may_pass_from_one_route_to_another(under_test: SinkUnderTest) -> None:
    """A delete and an upsert of the same host and path in one delta leave the new one, whatever their order."""
    await begin(under_test, route("one"))
    await under_test.sink.apply(Revision("e", 2), Delta(upserts(route("two")), deletes("one")))
    assert await under_test.location("a.test", "/") == "/two"


async def test_the_longest_prefix_of_whole_segments_wins(under_test: SinkUnderTest) -> None:
    """`/a/b` goes before `/a` before `/`, an exact path before all, and `/a` does not match `/ab`."""
    exact = route("exact", path="/a/b/c", path_match=PathMatch.exact)
    await begin(under_test, route("root"), route("a", path="/a"), route("ab", path="/a/b"), exact)
    seen = {p: await under_test.location("a.test", p) for p in ("/", "/ab", "/a", "/a/x", "/a/b/x", "/a/b/c")}
    assert seen == {"/": "/root", "/ab": "/root", "/a": "/a", "/a/x": "/a", "/a/b/x": "/ab", "/a/b/c": "/exact"}


async def test_an_exact_host_goes_before_a_wildcard_before_the_catch_all(under_test: SinkUnderTest) -> None:
    """The most specific host that is in the table serves."""
    await begin(under_test, route("exact"), route("wild", host="*.test"), route("all", host="*"))
    seen = [await under_test.location(host, "/") for host in ("a.test", "b.test", "elsewhere.example")]
    assert seen == ["/exact", "/wild", "/all"]


async def test_a_complete_delta_replaces_everything(under_test: SinkUnderTest) -> None:
    """What a complete delta does not name is gone, also when the epoch is another."""
    await begin(under_test, route("one"), route("two", host="b.test"))
    await under_test.sink.apply(Revision("other", 7), Delta(upserts(route("two", host="b.test")), complete=True))
    assert await under_test.location("a.test", "/") is None
    assert await under_test.location("b.test", "/") == "/two"
    assert await under_test.sink.applied() == Revision("other", 7)


async def test_the_same_delta_again_changes_nothing(under_test: SinkUnderTest) -> None:
    """A caller that does not know whether its delta arrived may send it again."""
    await begin(under_test, route("one"), route("two", host="b.test"))
    delta = Delta(upserts(route("one", to="new")), deletes("two", "never-there"))
    for _ in range(2):
        await under_test.sink.apply(Revision("e", 2), delta)
    assert await under_test.location("a.test", "/") == "/new"
    assert await under_test.location("b.test", "/") is None


async def test_the_number_of_a_revision_stops_no_delta(under_test: SinkUnderTest) -> None:
    """Another delta of the same number is applied too: what did not fit at first comes in parts."""
    await begin(under_test, route("one"))
    await under_test.sink.apply(Revision("e", 1), Delta(upserts(route("two", host="b.test"))))
    await under_test.sink.apply(Revision("e", 0), Delta(upserts(route("three", host="c.test")), complete=True))
    assert await under_test.location("a.test", "/") is None
    assert await under_test.location("b.test", "/") is None
    assert await under_test.location("c.test", "/") == "/three"
    assert await under_test.sink.applied() == Revision("e", 0)


async def test_a_fresh_sink_refuses_a_delta_that_is_not_complete(under_test: SinkUnderTest) -> None:
    """A table with holes would be taken for the whole one."""
    await begin(under_test, route("one"))
    await under_test.forget()
    assert await under_test.sink.applied() is None
    with pytest.raises(Conflict):
        await under_test.sink.apply(Revision("e", 2), Delta(upserts(route("two", host="b.test"))))
    assert await under_test.sink.applied() is None
    assert await under_test.location("b.test", "/") is None


async def test_a_delta_of_another_epoch_is_refused(under_test: SinkUnderTest) -> None:
    """A new agent knows nothing of the table that an earlier one left, so it must send a complete one."""
    await begin(under_test, route("one"))
    with pytest.raises(Conflict):
        await under_test.sink.apply(Revision("other", 2), Delta(upserts(route("two", host="b.test"))))
    assert await under_test.location("a.test", "/") == "/one"
    assert await under_test.location("b.test", "/") is None


async def test_routes_of_the_same_name_in_two_sections_live_side_by_side(under_test: SinkUnderTest) -> None:
    """A route is told apart by its source and name, not by its name."""
    both = upserts(route("one")) + upserts(route("one", host="b.test", to="other"), source="file")
    await under_test.sink.apply(Revision("e", 1), Delta(both, complete=True))
    await under_test.sink.apply(Revision("e", 2), Delta(deletes=deletes("one")))
    assert await under_test.location("a.test", "/") is None
    assert await under_test.location("b.test", "/") == "/other"


async def test_what_does_not_fit_is_refused_as_a_whole(small: SinkUnderTest) -> None:
    """A full sink raises LimitExceeded, keeps serving what it had and stays at its revision; smaller changes go on."""
    await begin(small, route("one"))
    headers = HeaderFilter(set={f"x-{n}": "v" * 1000 for n in range(20)})
    big = [
        route(f"big{n}", host=f"big{n}.test").model_copy(
            update={"filters": Filters(redirect=Redirect(path="/big"), request_headers=headers)}
        )
        for n in range(60)
    ]
    with pytest.raises(LimitExceeded):
        await small.sink.apply(Revision("e", 2), Delta(upserts(*big, route("one", to="new"))))
    assert await small.sink.applied() == Revision("e", 1)
    assert await small.location("a.test", "/") == "/one"
    assert await small.location("big0.test", "/") is None
    await small.sink.apply(Revision("e", 3), Delta(upserts(route("one", to="new"))))
    assert await small.location("a.test", "/") == "/new"


async def test_grants_stay_until_others_come(under_test: SinkUnderTest) -> None:
    """No table touches them, a complete one neither; others replace them, and empty ones take them away."""
    guarded = route("one", access=Access())
    await under_test.sink.grant(Grants(tokens=(token("first"),)))
    await begin(under_test, guarded)
    assert await under_test.location("a.test", "/") is None
    assert await under_test.location("a.test", "/", token="first") == "/one"
    await under_test.sink.grant(Grants(tokens=(token("first"), token("second"))))
    await under_test.sink.apply(Revision("e", 2), Delta(upserts(route("two", host="b.test")), grants=Grants()))
    assert await under_test.location("a.test", "/", token="second") == "/one"
    await under_test.sink.grant(Grants(tokens=(token("second"),)))
    await begin(under_test, guarded)
    assert await under_test.location("a.test", "/", token="first") is None
    assert await under_test.location("a.test", "/", token="second") == "/one"
    await under_test.sink.grant(Grants())
    assert await under_test.location("a.test", "/", token="second") is None


async def test_a_fresh_sink_grants_nothing_and_takes_the_same_grants_again(under_test: SinkUnderTest) -> None:
    """Whoever grants needs not know that the sink has forgotten what it was granted before."""
    guarded, grants = route("one", access=Access()), Grants(tokens=(token("first"), token("second")))
    await under_test.sink.grant(grants)
    await under_test.forget()
    await begin(under_test, guarded)
    assert await under_test.location("a.test", "/", token="first") is None
    await under_test.sink.grant(grants)
    assert await under_test.location("a.test", "/", token="first") == "/one"
    await under_test.forget()
    await begin(under_test, guarded)
    await under_test.sink.grant(Grants(tokens=(token("second"), token("third"))))
    seen = [await under_test.location("a.test", "/", token=name) for name in ("first", "second", "third")]
    assert seen == [None, "/one", "/one"]
