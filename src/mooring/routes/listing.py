"""Every route that is known here, in pages: those of the server's table, and those that only a gateway has.

A gateway's own sections (its file, its Redis) never come into the server's table: each gateway tells of them, and of
the conflicts that they are part of.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mooring.model.routes import Route
from mooring.routes.merge import Section
from mooring.routes.ports import RouteKey
from mooring.routes.table import RouteTable


class Place(NamedTuple):
    """Where a route stands in the list. `gateway` is "" for the server's own."""

    source: str
    name: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class GatewayTable:
    """What only a gateway knows: `sections` of its own, and by loser who won, where one of both is of these."""

    version: str
    sections: Mapping[str, Section]
    lost: Mapping[RouteKey, RouteKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """A route, its section's rank, and who is served in its place."""

    place: Place
    rank: int
    route: Route
    lost_to: RouteKey | None


def page(
    table: RouteTable,
    gateways: Mapping[str, GatewayTable],
    after: Place,
    limit: int,
    allowed: Callable[[Route], bool],
) -> list[Listed]:
    """The first `limit` routes behind `after` that are `allowed`."""
    sections = {"": table.sections()} | {name: {**known.sections} for name, known in gateways.items()}
    # Only as many as are shown: to sort ten thousand took a tenth of a second on the loop.
    places = heapq.nsmallest(limit, _places(sections, after, allowed))
    lost = {conflict.loser: conflict.winner for conflict in table.conflicts()}
    found = []
    for place in places:
        section, key = sections[place.gateway][place.source], RouteKey(place.source, place.name)
        winner = lost.get(key) if not place.gateway else gateways[place.gateway].lost.get(key)
        if winner is None and not place.gateway:
            # What won here may still lose to a route that only a gateway knows.
            winner = next((won for known in gateways.values() if (won := known.lost.get(key))), None)
        found.append(Listed(place, section.rank, section.routes[place.name], winner))
    return found


def _places(
    sections: Mapping[str, Mapping[str, Section]], after: Place, allowed: Callable[[Route], bool]
) -> Iterator[Place]:
    for gateway, known in sections.items():
        for source, section in known.items():
            for name, route in section.routes.items():
                if (source, name, gateway) > after and allowed(route):
                    yield Place(source, name, gateway)
