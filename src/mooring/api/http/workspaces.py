"""`/workspaces`: create, look, change, start, stop, enter."""
# ruff: noqa: FAST003 - the id in the path is read by the dependencies, once

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from mooring.accounts.credentials import Caller
from mooring.api.http import paging
from mooring.api.http.auth import Calling, Wired, as_subject, caller_of, services_of
from mooring.api.http.documents import DocumentRoute
from mooring.api.http.links import ticket_link, workspace_path
from mooring.api.http.paging import Cursor, Limit
from mooring.api.http.problem import problems
from mooring.api.http.render import workspace_documents
from mooring.api.http.schemas import KeepAwake, Page, TemplateMove, Ticket, TicketCreate, Workspace
from mooring.api.http.services import Services
from mooring.errors import Forbidden, InvalidInput, NotFound, StaleRevision
from mooring.model import workspace as model
from mooring.model.names import is_id
from mooring.workspaces.requests import Caller as Subject
from mooring.workspaces.requests import Change, NewWorkspace
from mooring.workspaces.service import WorkspaceService

router = APIRouter(
    prefix="/workspaces",
    tags=["workspaces"],
    responses=problems(401, 403, 422, 503),
    route_class=DocumentRoute,
)
_ONE = problems(404)
_CHANGE = problems(404, 409, 412)


async def id_of(workspace_id: str) -> str:
    """The id in the path.

    Raises:
        NotFound: when it is none.
    """
    if not is_id(workspace_id):
        raise NotFound("there is no such workspace")
    return workspace_id


async def expected_of(if_match: Annotated[str | None, Header(max_length=100)] = None) -> int | None:
    """The revision that the caller saw (RFC 9110 13.1.1); None for whatever is there.

    Raises:
        StaleRevision: for an entity tag that is none of ours.
        InvalidInput: for several.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    if "," in if_match:
        raise InvalidInput("If-Match must be one entity tag or *", field="If-Match")
    match = re.fullmatch(r'"(\d{1,15})"', if_match.strip())
    if match is None:
        raise StaleRevision("If-Match is not an entity tag of this workspace", field="If-Match")
    return int(match[1])


async def entered(
    workspace_id: Annotated[str, Depends(id_of)],
    caller: Annotated[Caller, Depends(caller_of)],
    services: Annotated[Services, Depends(services_of)],
) -> model.Workspace:
    """The workspace, if the caller may enter it: an administrator sees others' and enters none of them.

    Raises:
        NotFound: when the caller may not know of it.
        Forbidden: when it is another's.
    """
    workspace = await services.workspaces.get(as_subject(caller), workspace_id)
    if workspace.owner != caller.user:
        raise Forbidden("only its owner enters a workspace")
    return workspace


@dataclass(frozen=True, slots=True)
class Target:
    """The workspace that a call is about: who asks, and the revision that it saw."""

    services: Services
    caller: Subject
    id: str
    expected: int | None
    response: Response

    @property
    def service(self) -> WorkspaceService:
        return self.services.workspaces

    async def answer(self, workspace: model.Workspace) -> Workspace:
        """The workspace as it is now, with its revision as the entity tag."""
        return await _tagged(self.services, workspace, self.response)


async def target_of(
    workspace_id: Annotated[str, Depends(id_of)],
    caller: Annotated[Caller, Depends(caller_of)],
    services: Annotated[Services, Depends(services_of)],
    expected: Annotated[int | None, Depends(expected_of)],
    response: Response,
) -> Target:
    """The workspace in the path, not looked up yet."""
    return Target(services, as_subject(caller), workspace_id, expected, response)


Id = Annotated[str, Depends(id_of)]
At = Annotated[Target, Depends(target_of)]
Entered = Annotated[model.Workspace, Depends(entered)]


@router.get("")
async def page(
    caller: Calling,
    services: Wired,
    cursor: Cursor = None,
    limit: Limit = 100,
    owner: Annotated[str | None, Query(max_length=64)] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
) -> Page[Workspace]:
    """One's own workspaces; an administrator's list has everybody's. With `name`, the one of that name."""
    subject = as_subject(caller)
    if name is not None:
        try:
            found = await services.workspaces.find(subject, owner or caller.user, name)
        except NotFound:
            return Page(items=())
        return Page(items=await workspace_documents(services, [found]))
    after = paging.decode(cursor)
    listed = await services.workspaces.page(subject, owner=owner, after=after, limit=limit)
    return Page(items=await workspace_documents(services, listed.items), cursor=paging.encode(listed.cursor))


@router.post("", status_code=201, responses=problems(409))
async def create(caller: Calling, services: Wired, body: NewWorkspace, response: Response) -> Workspace:
    """Make a workspace, started unless told otherwise."""
    owner = body.owner if body.owner and caller.admin else caller.user
    async with services.accounts.staying(owner):
        workspace = await services.workspaces.create(as_subject(caller), body)
    response.headers["Location"] = f"/api/v1/workspaces/{workspace.id}"
    return await _tagged(services, workspace, response)


@router.get("/{workspace_id}", responses=_ONE)
async def show(workspace_id: Id, caller: Calling, services: Wired, response: Response) -> Workspace:
    """A workspace; the entity tag is its revision."""
    return await _tagged(services, await services.workspaces.get(as_subject(caller), workspace_id), response)


@router.patch("/{workspace_id}", responses=_CHANGE)
async def change(at: At, body: Change) -> Workspace:
    """Change name, limits, environment or idle rule; limits and environment hold from the next start."""
    return await at.answer(await at.service.update(at.caller, at.id, body, expected=at.expected))


@router.delete("/{workspace_id}", status_code=202, responses=_CHANGE)
async def delete(at: At) -> Workspace:
    """Delete a workspace with its files."""
    return await at.answer(await at.service.delete(at.caller, at.id, expected=at.expected))


@router.post("/{workspace_id}/start", status_code=202, responses=_CHANGE)
async def start(at: At) -> Workspace:
    """Start it; a failed one is tried anew."""
    return await at.answer(await at.service.start(at.caller, at.id, expected=at.expected))


@router.post("/{workspace_id}/stop", status_code=202, responses=_CHANGE)
async def stop(at: At) -> Workspace:
    """Stop it; its files stay."""
    return await at.answer(await at.service.stop(at.caller, at.id, expected=at.expected))


@router.post("/{workspace_id}/restart", status_code=202, responses=_CHANGE)
async def restart(at: At) -> Workspace:
    """Stop and start it, with the limits, environment and template version that it has by now."""
    return await at.answer(await at.service.restart(at.caller, at.id, expected=at.expected))


@router.post("/{workspace_id}/keep-awake", responses=_CHANGE)
async def keep_awake(at: At, body: KeepAwake) -> Workspace:
    """Do not stop it for idleness for a while."""
    until = at.services.clock.now() + body.for_s
    return await at.answer(await at.service.keep_awake(at.caller, at.id, until, expected=at.expected))


@router.post("/{workspace_id}/template", responses=_CHANGE)
async def move(at: At, body: TemplateMove) -> Workspace:
    """Move it to another version of its template, from the next start."""
    return await at.answer(await at.service.move_to_template(at.caller, at.id, body.version, expected=at.expected))


@router.post("/{workspace_id}/ticket", status_code=201, responses=_ONE)
async def ticket(workspace: Entered, caller: Calling, services: Wired, body: TicketCreate) -> Ticket:
    """A link that signs one browser in at the workspace, once, within a minute."""
    if body.path_form:
        path = workspace_path(workspace, body.port) + body.next.removeprefix("/")
        return await ticket_link(services, caller, host=services.hosts.paths, path=path)
    host = services.hosts.workspace(workspace.name, workspace.owner)
    if body.port is not None:
        host = services.hosts.port(workspace.name, workspace.owner, body.port)
    return await ticket_link(services, caller, host=host, path=body.next)


async def _tagged(services: Services, workspace: model.Workspace, response: Response) -> Workspace:
    response.headers["ETag"] = f'"{workspace.revision}"'
    (document,) = await workspace_documents(services, [workspace])
    return document
