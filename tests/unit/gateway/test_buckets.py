"""The buckets of the shared dictionary: what a delta touches, and that nothing is left of one that did not fit."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.gateway.buckets import Buckets, Change
from mooring.model.routes import Access, Backend, Filters, Match, Route, Timeouts
from mooring.routes.ports import Delta, RouteKey

PATHS = ("/", "/a", "/a/b", "/a/b/c", "/x", "/a/{port}", "/a/b/{port}/")


def route(name: str, host: str = "a.test", path: str = "/", **more: object) -> Route:
    """A route with one backend."""
    address = "127.0.0.1:{port}" if "{port}" in path else "127.0.0.1:1"
    return Route(**{"name": name, "host": host, "path": path, "backends": (Backend(address=address),)} | more)


def entry(found: Route, source: str = "s") -> tuple[RouteKey, Route]:
    """An upsert."""
    return RouteKey(source, found.name), found


def applied(table: dict[str, str], change: Change) -> dict[str, str]:
    """What the dictionary holds afterwards."""
    return {key: text for key, text in (table | change.sets).items() if key not in change.deletes}


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    """A few upserts and deletes over a small world."""
    names = st.sampled_from("abcdef")
    routes = draw(
        st.lists(
            st.builds(route, names, st.sampled_from(["a.test", "*.test", "*"]), st.sampled_from(PATHS)), max_size=4
        )
    )
    deletes = draw(st.lists(names, max_size=3))
    upserts = tuple({found.name: entry(found) for found in routes}.values())
    return Delta(upserts, tuple(RouteKey("s", name) for name in deletes), complete=draw(st.booleans()))


@given(st.lists(st.tuples(deltas(), st.booleans()), max_size=12))
@settings(max_examples=200, deadline=None)
def test_deltas_lead_where_a_fresh_start_leads(steps: list[tuple[Delta, bool]]) -> None:
    """After any deltas, some of them rolled back, the dictionary holds what the routes alone would make of it."""
    buckets, table, routes = Buckets(), dict[str, str](), dict[RouteKey, Route]()
    for delta, fits in steps:
        change = buckets.change(delta)
        if not fits:
            buckets.rollback()
            continue
        buckets.commit()
        table = change.sets if delta.complete else applied(table, change)
        kept = {} if delta.complete else {k: r for k, r in routes.items() if k not in delta.deletes}
        routes = kept | dict(delta.upserts)
    fresh = Buckets().change(Delta(tuple(routes.items()), complete=True))
    assert table == fresh.sets


def test_a_change_touches_its_own_bucket_alone() -> None:
    """However many routes there are, a changed one sends one bucket."""
    buckets = Buckets()
    many = tuple(entry(route(f"r{n}", host=f"h{n}.test")) for n in range(500))
    buckets.change(Delta(many, complete=True))
    buckets.commit()
    change = buckets.change(Delta((entry(route("r7", host="h7.test", state="stopped")),)))
    assert list(change.sets) == ["main h7.test"]
    assert change.deletes == []


def test_the_hosts_own_entry_says_how_deep_to_look() -> None:
    """It changes with the deepest route, goes with the last one, and is there without a route of its own."""
    buckets = Buckets()
    first = buckets.change(Delta((entry(route("deep", path="/a/b/c")),), complete=True))
    buckets.commit()
    assert json.loads(first.sets["main a.test"]) == {"routes": [], "depth": 2}
    assert list(first.sets) == ["main a.test", "main a.test /a/b"]
    moved = buckets.change(Delta((entry(route("deep", path="/a")),)))
    buckets.commit()
    assert json.loads(moved.sets["main a.test"])["depth"] == 1
    assert moved.deletes == ["main a.test /a/b"]
    gone = buckets.change(Delta(deletes=(RouteKey("s", "deep"),)))
    assert sorted(gone.deletes) == ["main a.test", "main a.test /a"]
    assert gone.gone == ["s/deep"]


def test_a_bucket_lists_the_route_to_try_first_in_front() -> None:
    """Longest path, exact before prefix, most conditions, then order, then name."""
    matched = (Match(kind="method", value="GET"),)
    routes = (
        route("root"),
        route("late", path="/a/b", order=1),
        route("early", path="/a/b"),
        route("narrow", path="/a/b", matches=matched, order=5),
        route("exact", path="/a/b", path_match="exact", order=9),
        route("long", path="/a/b/c/d", order=9),
    )
    change = Buckets().change(Delta(tuple(entry(found) for found in routes), complete=True))
    listed = [found["id"] for found in json.loads(change.sets["main a.test /a/b"])["routes"]]
    assert listed == ["s/long", "s/exact", "s/narrow", "s/early", "s/late"]


def test_defaults_are_left_out() -> None:
    """A worker keeps thousands of routes: what Lua assumes anyway is not sent."""
    plain = Buckets().change(Delta((entry(route("one", filters=Filters(strip_prefix=True))),), complete=True))
    found = json.loads(plain.sets["main a.test"])["routes"][0]
    assert found == {"id": "s/one", "path": "", "backends": [{"host": "127.0.0.1", "port": 1}], "rewrite": ""}
    public = route("one", access=Access(kind="public"), filters=Filters(strip_prefix=True))
    other = Buckets().change(Delta((entry(public),), complete=True))
    found = json.loads(other.sets["main a.test"])["routes"][0]
    assert (found["access"], found["rewrite"]) == ("public", "")


def test_a_plain_route_alone_in_its_bucket_is_lines() -> None:
    """Most buckets are: Lua cuts them out anew for every request. Who may enter is never lost on the way."""

    def lines(**more: object) -> list[str]:
        found = Buckets().change(Delta((entry(route("one", **more)),), complete=True)).sets["main a.test"]  # type: ignore[arg-type]
        return [found] if found.startswith("{") else found.split("\n")

    assert lines() == ["127.0.0.1", "1", "", "s/one", "", ""]
    assert lines(access=Access(kind="public"), workspace="w000000001") == [
        "127.0.0.1",
        "1",
        "*",
        "s/one",
        "",
        "w000000001",
    ]
    only = Access(kind="subjects", subjects=("ann",))
    assert lines(access=only, backends=(Backend(unix="/run/x"),)) == ["unix:/run/x", "", "ann", "s/one", "", ""]
    for others in ((), ("ann", "bob")):
        (text,) = lines(access=Access(kind="subjects", subjects=others))
        assert json.loads(text)["routes"][0]["subjects"] == dict.fromkeys(others, True)


@pytest.mark.parametrize(
    "more",
    [
        {"state": "stopped"},
        {"backends": (Backend(address="127.0.0.1:1"), Backend(address="127.0.0.1:2"))},
        {"backends": (Backend(address="127.0.0.1:1", protocol="https"),)},
        {"backends": (Backend(files="/srv/pages"),)},
        {"matches": (Match(kind="method", value="GET"),)},
        {"path_match": "exact"},
        {"timeouts": Timeouts(read_s=1)},
        {"affinity": "cookie"},
        {"balancing": "least_connections"},
    ],
)
def test_whatever_else_a_route_asks_for_is_json(more: dict[str, Any]) -> None:
    """Lines say no more than where to and who may: a route of which they would lose something is not written so."""
    found = Buckets().change(Delta((entry(route("one", **more)),), complete=True)).sets["main a.test"]
    assert json.loads(found)["routes"][0]["id"] == "s/one"
