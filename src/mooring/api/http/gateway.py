"""`/gateway`: what gateways ask and say, with their own credential. The formats are in `docs/architecture.md`."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from mooring.api.http.auth import Wired, gateway_of
from mooring.api.http.problem import problems
from mooring.api.http.schemas import GatewayReport, GatewayTable, Listener
from mooring.api.http.services import Services
from mooring.api.http.stream import Stream
from mooring.errors import NotFound
from mooring.model.names import MAX_PORT, is_id
from mooring.model.routes import Route
from mooring.routes import listing
from mooring.routes.merge import Section as MergedSection
from mooring.routes.ports import Delta, Revision, RouteKey, SectionChange
from mooring.routes.reports import Report, SectionSize
from mooring.routes.table import RouteTable
from mooring.routes.wire import Ping, Synced, encode
from mooring.workspaces.section import RANK, SOURCE

router = APIRouter(
    prefix="/gateway", tags=["gateway"], dependencies=[Depends(gateway_of)], responses=problems(401, 422)
)
PING_S = 5.0
GRANTS_FOR_S = 60.0


@router.get("/sections", response_class=Response)
async def sections(services: Wired) -> Response:
    """Every section and the grants, then each change, for ever, as NDJSON."""
    return Stream(_lines(services), ends=(services.closing.wait(),), media_type="application/x-ndjson")


@router.post("/report", status_code=204, responses=problems(413) | {202: {"description": "And its table is wanted"}})
async def report(services: Wired, body: GatewayReport) -> Response:
    """What the gateway applied and saw. 202 when the server does not know its own sections in that version."""
    known = services.reports.take(
        Report(
            gateway=body.gateway,
            applied=Revision(*body.applied) if body.applied else None,
            sources=body.sources,
            activity=body.activity,
            connections=body.connections,
            workers=body.nginx.workers,
            restarts=body.nginx.restarts,
            metrics=body.metrics,
            problems=body.problems,
            sections={
                name: SectionSize(section.rank, section.routes, section.lost) for name, section in body.sections.items()
            },
            table=body.table,
        )
    )
    return Response(status_code=204 if known else 202)


@router.put("/table", status_code=204, responses=problems(413))
async def table(services: Wired, body: GatewayTable) -> Response:
    """The sections that only this gateway has."""
    services.reports.take_table(
        body.gateway,
        listing.GatewayTable(
            version=body.version,
            sections={
                name: MergedSection(section.rank, {route.name: route for route in section.routes})
                for name, section in body.sections.items()
            },
            lost={
                RouteKey(lost.loser.source, lost.loser.name): RouteKey(lost.winner.source, lost.winner.name)
                for lost in body.conflicts
            },
        ),
    )
    return Response(status_code=204)


@router.get("/listeners/{workspace_id}/{port}", responses=problems(404, 503))
async def listener(services: Wired, workspace_id: str, port: Annotated[int, Path(ge=1, le=MAX_PORT)]) -> Listener:
    """Where a port of a workspace is reached: only while its own processes listen on it."""
    address = await services.workspaces.listener(workspace_id, port) if is_id(workspace_id) else None
    if address is None:
        raise NotFound("nothing of this workspace listens there")
    return Listener(address=address)


async def _lines(services: Services) -> AsyncIterator[bytes]:
    # A gateway takes what is missing at `synced` for gone: it must not hear from a server that is still starting.
    await services.seeded.wait()
    sent: Revision | None = None
    with services.table.subscribe() as subscription:
        while True:
            try:
                async with asyncio.timeout(PING_S):
                    revision, delta = await anext(subscription)
            except TimeoutError:
                if sent is not None:
                    yield encode(Ping(sent, GRANTS_FOR_S))
                continue
            for change in section_changes(services.table, revision, delta):
                yield encode(change)
            if sent is None:
                yield encode(Synced())
            sent = revision


def section_changes(table: RouteTable, revision: Revision, delta: Delta) -> list[SectionChange]:
    """`delta` of the merged table as one change a section; the grants go with the server's own, first."""
    ranks = {source: section.rank for source, section in table.sections().items()}
    upserts: dict[str, list[Route]] = defaultdict(list)
    deletes: dict[str, list[str]] = defaultdict(list)
    for key, route in delta.upserts:
        upserts[key.source].append(route)
    for key in delta.deletes:
        deletes[key.source].append(key.name)
    changes = [
        SectionChange(
            source=source,
            upserts=tuple(upserts.get(source, ())),
            deletes=tuple(deletes.get(source, ())),
            complete=delta.complete,
            grants=delta.grants if source == SOURCE else None,
            rank=ranks.get(source, RANK),
            revision=revision,
        )
        for source in sorted({SOURCE, *ranks}, key=lambda source: source != SOURCE)
    ]
    return [change for change in changes if change.complete or change.upserts or change.deletes or change.grants]
