"""`/.mooring/…` on every host: the way in, the way out, and the progress that the starting page shows.

The cookie is `SameSite=Lax`. `Strict` would not go along when a person follows a link from a chat or another origin to
a workspace, so that each such link would ask them to sign in; what `Lax` lets through are top-level GETs only, and a
GET changes nothing here. Pages of other origins are told apart by `Origin` where something changes.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from mooring.accounts.credentials import Caller
from mooring.api.console.pages import Pages
from mooring.api.http.auth import Wired, as_subject, check_origin, cookie_caller, cookie_name, secure
from mooring.api.http.events import Resumed, sse, sse_message
from mooring.api.http.links import read_host
from mooring.api.http.problem import problems
from mooring.api.http.schemas import moment
from mooring.api.http.services import Services
from mooring.api.http.stream import closing
from mooring.errors import NotFound, Unauthenticated
from mooring.model.workspace import Workspace
from mooring.workspaces.ports import Event

router = APIRouter(prefix="/.mooring", include_in_schema=False)
pages = Pages()


@router.get("/ticket")
async def enter(request: Request, services: Wired, ticket: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Turn a one-time link into this host's cookie, and go where it leads."""
    host = host_of(request)
    try:
        redeemed = await services.accounts.redeem(ticket, host=host)
    except Unauthenticated as error:
        return pages.message(services, 401, "This link does not work any more", error.detail)
    response = Response(status_code=303, headers={"Location": redeemed.next} | _PRIVATE)
    response.set_cookie(
        cookie_name(services.listen, host),
        redeemed.cookie,
        max_age=redeemed.lasts_s,
        path="/",
        secure=secure(services.listen, host),
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/sign-out")
async def ask_sign_out(request: Request, services: Wired) -> Response:
    """A page with the button: a link alone must sign nobody out."""
    return pages.sign_out(services, host_of(request))


@router.post("/sign-out")
async def sign_out(request: Request, services: Wired) -> Response:
    """End this host's session; at the console also those of the workspaces opened from it."""
    host = host_of(request)
    caller = await cookie_caller(request, host)
    check_origin(request, host)
    await services.accounts.sign_out(caller.id)
    response = pages.message(services, 200, "Signed out", "This browser is signed out.")
    response.delete_cookie(
        cookie_name(services.listen, host), path="/", secure=secure(services.listen, host), httponly=True
    )
    return response


@router.get("/events", responses=problems(401, 404))
async def progress(
    request: Request,
    services: Wired,
    last: Resumed,
    workspace: Annotated[str, Query(max_length=10, description="On the host of the path forms: which.")] = "",
) -> Response:
    """The progress of this host's workspace, for the starting page: each event with the phase it is in by then."""
    host = host_of(request)
    caller = await cookie_caller(request, host)
    found = await _workspace_of(services, caller, host, workspace)
    events = services.workspaces.follow(as_subject(caller), found.id, after=last or 0)
    return sse(services, caller, _progress(services, caller, found, events))


def host_of(request: Request) -> str:
    """The host that was routed, without its port."""
    return request.headers.get("host", "").rpartition(":")[0].lower() or request.headers.get("host", "").lower()


async def _workspace_of(services: Services, caller: Caller, host: str, workspace_id: str) -> Workspace:
    subject = as_subject(caller)
    if host == services.hosts.paths:
        found = await services.workspaces.get(subject, workspace_id)
    elif at := read_host(services.hosts, host):
        found = await services.workspaces.find(subject, at.owner, at.name)
    else:
        raise NotFound("this host is no workspace's")
    if found.owner != caller.user:
        raise NotFound("no such workspace")
    return found


async def _progress(
    services: Services, caller: Caller, workspace: Workspace, events: AsyncIterator[Event]
) -> AsyncIterator[bytes]:
    yield sse_message({"phase": workspace.phase, "reason": workspace.reason})
    async with closing(events) as items:
        async for event in items:
            now = await services.workspaces.get(as_subject(caller), workspace.id)
            document = {"phase": now.phase, "reason": now.reason, "kind": event.kind, "text": event.text}
            yield sse_message(document | {"at": moment(event.at).isoformat()}, id=event.id)


_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
