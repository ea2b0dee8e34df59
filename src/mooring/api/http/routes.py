"""`/routes`: the server's route table, who lost a conflict, and the sections that programs publish."""

from collections import Counter
from typing import Any

from fastapi import APIRouter, Response

from mooring.accounts.credentials import Caller
from mooring.api.http import paging
from mooring.api.http.auth import Admin, Calling, Wired
from mooring.api.http.documents import TableRoute
from mooring.api.http.paging import Cursor, Limit
from mooring.api.http.problem import problems
from mooring.api.http.schemas import Page, RouteEntry, RouteName, Section, SectionPublish
from mooring.api.http.services import Services
from mooring.errors import InvalidInput
from mooring.model.routes import Route
from mooring.routes import listing
from mooring.routes.listing import Listed, Place
from mooring.routes.published import PublishedSection

router = APIRouter(prefix="/routes", tags=["routes"], responses=problems(401, 403, 503), route_class=TableRoute)


@router.get("", responses=problems(422))
async def page(caller: Calling, services: Wired, cursor: Cursor = None, limit: Limit = 100) -> Page[RouteEntry]:
    """The routes that the caller may enter, an administrator's list has all; with who won over those not served.

    Those of the server's table and those that only a gateway has, by source and name.
    """
    after = _position(paging.decode(cursor))
    found = listing.page(
        services.table, services.reports.tables(), after, limit + 1, lambda route: may_enter(caller, route)
    )
    items = tuple(_entry(caller, listed) for listed in found[:limit])
    return Page(items=items, cursor=paging.encode("\n".join(found[limit - 1].place)) if len(found) > limit else None)


@router.get("/sections")
async def sections(caller: Admin, services: Wired) -> Page[Section]:  # noqa: ARG001 - only lets administrators in
    """The sources of routes: of the server's table, then those that each gateway has of its own."""
    return Page(items=(*_own_sections(services), *_gateways_sections(services)))


@router.put("/sections/{source}", responses=problems(409, 413, 422))
async def publish(caller: Admin, services: Wired, source: str, body: SectionPublish) -> Section:  # noqa: ARG001
    """Publish all the routes of a source at once; the same again changes nothing."""
    await services.publisher.publish(PublishedSection(source, body.rank, body.routes))
    return next(section for section in _own_sections(services) if section.source == source)


@router.delete("/sections/{source}", status_code=204, responses=problems(404))
async def withdraw(caller: Admin, services: Wired, source: str) -> Response:  # noqa: ARG001
    """Withdraw a published section."""
    await services.publisher.withdraw(source)
    return Response(status_code=204)


def _own_sections(services: Services) -> list[Section]:
    sections, published = services.table.sections(), services.publisher.published
    lost = Counter(conflict.loser.source for conflict in services.table.conflicts())
    for source in sections:
        # What won here may still lose to a route that only a gateway knows.
        there = (h.report.sections[source].lost for h in services.reports.heard() if source in h.report.sections)
        lost[source] += max(there, default=0)
    return [
        Section(
            source=source,
            rank=section.rank,
            routes=len(section.routes),
            published=source in published,
            lost=lost[source],
        )
        for source, section in sorted(sections.items())
        if section.routes or source in published
    ]


def _gateways_sections(services: Services) -> list[Section]:
    ours = services.table.sections().keys()
    return [
        Section(
            source=source,
            rank=section.rank,
            routes=section.routes,
            published=False,
            lost=section.lost,
            gateway=heard.report.gateway,
        )
        for heard in services.reports.heard()
        for source, section in sorted(heard.report.sections.items())
        if source not in ours
    ]


def may_enter(caller: Caller, route: Route) -> bool:
    """Whether the caller may know of a route: because it may enter it, or manages all."""
    return caller.admin or route.access.kind != "subjects" or caller.user in route.access.subjects


def _entry(caller: Caller, listed: Listed) -> RouteEntry:
    place, winner = listed.place, listed.lost_to
    return RouteEntry(
        source=place.source,
        name=place.name,
        rank=listed.rank,
        route=_shown(caller, listed.route),
        lost_to=RouteName(source=winner.source, name=winner.name) if winner else None,
        gateway=place.gateway or None,
    )


def _shown(caller: Caller, route: Route) -> dict[str, Any]:
    """Addresses behind the gateway are for who manages it: a member sees where a route is, not what is behind."""
    document = route.model_dump(mode="json")
    if caller.admin:
        return document
    return document | {"backends": [], "filters": document["filters"] | {"mirror": None}}


def _position(position: str | None) -> Place:
    if position is None:
        return Place("", "")
    parts = position.split("\n")
    if len(parts) != len(Place._fields):
        raise InvalidInput("cursor must be one that a page had", field="cursor")
    return Place(*parts)
