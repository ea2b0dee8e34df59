"""The console's host: one's workspaces, and the way into each. Full accounts and passwords come later."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response

from mooring.accounts.credentials import Caller
from mooring.api.console.pages import Pages, see_other
from mooring.api.http.auth import Wired, as_subject, check_origin, cookie_caller
from mooring.api.http.links import read_host, ticket_link
from mooring.api.http.render import workspace_documents
from mooring.api.http.routes import may_enter
from mooring.api.http.services import Services
from mooring.errors import InvalidInput, NotFound
from mooring.model.names import is_id
from mooring.model.workspace import Workspace

router = APIRouter(include_in_schema=False)
pages = Pages()
_MOST_SHOWN = 500
_ELSEWHERE = "This link does not lead to anything here."


@router.get("/")
async def home(request: Request, services: Wired) -> Response:
    """One's workspaces with their phase, a link into each, and a button that starts one."""
    caller = await cookie_caller(request, services.hosts.console)
    listed = await services.workspaces.page(as_subject(caller), owner=caller.user, limit=_MOST_SHOWN)
    by_name = sorted(listed.items, key=lambda workspace: workspace.name)
    return pages.workspaces(caller.user, await workspace_documents(services, by_name))


@router.get("/open")
async def open_url(request: Request, services: Wired, url: Annotated[str, Query(max_length=4096)] = "") -> Response:
    """Sign the browser in at the host of `url`, one of ours that the caller may enter, and go there."""
    caller = await cookie_caller(request, services.hosts.console)
    host, path = await _destination(services, caller, url)
    return see_other((await ticket_link(services, caller, host=host, path=path)).url)


@router.get("/open/{workspace_id}")
async def open_workspace(request: Request, services: Wired, workspace_id: str) -> Response:
    """Sign the browser in at a workspace and go there."""
    caller = await cookie_caller(request, services.hosts.console)
    workspace = await _own(services, caller, workspace_id)
    host = services.hosts.workspace(workspace.name, workspace.owner)
    return see_other((await ticket_link(services, caller, host=host, path="/")).url)


@router.post("/open/{workspace_id}/start")
async def start(request: Request, services: Wired, workspace_id: str) -> Response:
    """The start button."""
    caller = await cookie_caller(request, services.hosts.console)
    check_origin(request, services.hosts.console)
    workspace = await _own(services, caller, workspace_id)
    await services.workspaces.start(as_subject(caller), workspace.id)
    return see_other("/")


async def _own(services: Services, caller: Caller, workspace_id: str) -> Workspace:
    if is_id(workspace_id):
        workspace = await services.workspaces.get(as_subject(caller), workspace_id)
        if workspace.owner == caller.user:
            return workspace
    raise NotFound("You have no such workspace.")


async def _destination(services: Services, caller: Caller, url: str) -> tuple[str, str]:
    """Host and path of `url`: a workspace of the caller's, a host below our domain, or one that a route is for.

    Everything below our domain is our gateway, which lets a subject in or not: the ticket only says who it is.

    Raises:
        InvalidInput: when it leads anywhere else.
        NotFound: when it is another's workspace.
    """
    host, path = _split(services, url)
    if not host.endswith(f".{services.hosts.domain}"):
        routes = services.table.routes().values()
        if not any(route.host == host and may_enter(caller, route) for route in routes):
            raise InvalidInput(_ELSEWHERE, field="url")
    if at := read_host(services.hosts, host):
        workspace = await services.workspaces.find(as_subject(caller), at.owner, at.name)
        await _own(services, caller, workspace.id)
    return host, path


def _split(services: Services, url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidInput(_ELSEWHERE, field="url") from error
    host = parts.hostname or ""
    # Compared as a whole, so that no user part, other port or spelling of the host slips through.
    if not host or f"{parts.scheme}://{parts.netloc}" != services.listen.url(host, ""):
        raise InvalidInput(_ELSEWHERE, field="url")
    return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
