"""Who serves when several routes match the same requests. Pure: no I/O, no state.

Routes conflict when listener, host, path, kind of path match and conditions are equal. The smaller source rank wins,
then the smaller `order`, then the name, and at last the source's name, so that every gateway decides alike.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mooring.model.routes import Match, PathMatch, Route
from mooring.routes.ports import Conflict, RouteKey


class MatchKey(NamedTuple):
    """What a route matches. Equal keys are a conflict."""

    listener: str
    host: str
    path: str
    path_match: PathMatch
    matches: tuple[tuple[str, str, bool, str], ...]


class Claim(NamedTuple):
    """A route's claim to its match key; the smallest of them is served."""

    rank: int
    order: int
    name: str
    source: str

    @property
    def key(self) -> RouteKey:
        return RouteKey(self.source, self.name)


class Section(NamedTuple):
    """All routes of one source by name, and the source's rank."""

    rank: int
    routes: Mapping[str, Route]


class Merged(NamedTuple):
    """What is served, and who lost."""

    routes: dict[RouteKey, Route]
    conflicts: tuple[Conflict, ...]


def match_key(route: Route) -> MatchKey:
    """The key of `route`: the order of its conditions and a prefix's last slash make no difference."""
    path = route.path
    if route.path_match is PathMatch.prefix and len(path) > 1:
        path = path.rstrip("/")
    return MatchKey(route.listener, route.host, path, route.path_match, tuple(sorted(map(_condition, route.matches))))


def claim(source: str, rank: int, route: Route) -> Claim:
    """The claim of `route` as a member of the section `source`."""
    return Claim(rank, route.order, route.name, source)


def losers(claims: Iterable[Claim]) -> tuple[Conflict, ...]:
    """A conflict for each claim but the winner; `claims` is sorted."""
    winner, *rest = claims
    return tuple(Conflict(winner.key, loser.key) for loser in rest)


def merge(sections: Mapping[str, Section]) -> Merged:
    """Merge whole sections from scratch: the definition that the table's incremental work must agree with."""
    claims: dict[MatchKey, list[Claim]] = {}
    for source, section in sections.items():
        for route in section.routes.values():
            claims.setdefault(match_key(route), []).append(claim(source, section.rank, route))
    contests = [sorted(contest) for contest in claims.values()]
    served = {contest[0].key: sections[contest[0].source].routes[contest[0].name] for contest in contests}
    return Merged(served, tuple(sorted((c for contest in contests for c in losers(contest)), key=_by_loser)))


def _by_loser(conflict: Conflict) -> RouteKey:
    return conflict.loser


def _condition(match: Match) -> tuple[str, str, bool, str]:
    # Header names are case-insensitive (RFC 9110 5.1); two spellings of one would hide a conflict.
    name = match.name.lower() if match.kind == "header" else match.name
    return match.kind, name, match.value is not None, match.value or ""
