"""Routes and section changes for tests: short to write, and strategies that draw them."""

from hypothesis import strategies as st

from mooring.model.grants import Grants, SigningKey, TokenGrant
from mooring.model.routes import Backend, Match, PathMatch, Route, RouteState
from mooring.routes.ports import SectionChange

SOURCES = ("workspaces", "file", "redis")
NAMES = ("a", "b", "c", "d", "e")


def serving(name: str, *, address: str = "127.0.0.1:4000", **more: object) -> Route:
    """A route to one backend."""
    return Route(**({"name": name, "host": f"{name}.localhost", "backends": (Backend(address=address),)} | more))


def stopped(name: str, **more: object) -> Route:
    """A route without a backend."""
    return Route(**({"name": name, "host": f"{name}.localhost", "state": RouteState.stopped} | more))


matches = st.lists(
    st.builds(
        Match,
        kind=st.sampled_from(("header", "query")),
        name=st.sampled_from(("x", "X", "y")),
        value=st.sampled_from((None, "", "1")),
    ),
    max_size=2,
).map(tuple)

routes = st.builds(
    stopped,
    st.sampled_from(NAMES),
    host=st.sampled_from(("*", "a.localhost")),
    path=st.sampled_from(("/", "/x", "/x/")),
    path_match=st.sampled_from(PathMatch),
    order=st.integers(0, 1),
    matches=st.one_of(st.just(()), matches),
)

grants = st.one_of(
    st.none(),
    st.builds(
        Grants,
        keys=st.lists(
            st.builds(SigningKey, st.sampled_from(("k", "l")), st.binary(min_size=32, max_size=32), st.just(9)),
            max_size=2,
        ).map(tuple),
        tokens=st.lists(st.builds(TokenGrant, st.just("0" * 64), st.just("maria"), st.just("s")), max_size=1).map(
            tuple
        ),
        revoked=st.sampled_from(((), (("s", 5),))),
    ),
)

changes = st.builds(
    SectionChange,
    source=st.sampled_from(SOURCES),
    upserts=st.lists(routes, max_size=4, unique_by=lambda route: route.name).map(tuple),
    deletes=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    complete=st.booleans(),
    grants=grants,
    rank=st.one_of(st.just(None), st.integers(0, 2)),
)
"""Changes whose routes collide often: few names, hosts and paths, and ranks that change."""
