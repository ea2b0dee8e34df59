"""URLs of workspaces, and one-time links to them."""

from dataclasses import dataclass

from mooring.accounts.credentials import Caller
from mooring.api.http.schemas import Ticket, moment
from mooring.api.http.services import Services
from mooring.model.names import MAX_PORT, Hosts
from mooring.model.workspace import Workspace

TICKET_PATH = "/.mooring/ticket"


@dataclass(frozen=True, slots=True)
class WorkspaceHost:
    """What a host name says: a workspace's editor, or one of its ports."""

    owner: str
    name: str
    port: int | None = None


def read_host(hosts: Hosts, host: str) -> WorkspaceHost | None:
    """What `host` says, None when it is not the name of a workspace here."""
    label, dot, domain = host.partition(".")
    parts = label.split("--")
    if not dot or domain != hosts.domain:
        return None
    if len(parts) == 2:  # noqa: PLR2004 - name--owner
        found = WorkspaceHost(parts[1], parts[0])
    elif len(parts) == 3 and (port := _port(parts[0])):  # noqa: PLR2004 - p3000--name--owner
        found = WorkspaceHost(parts[2], parts[1], port)
    else:
        return None
    # Only the one spelling that we write: another could name the same workspace under another audience.
    return found if _host(hosts, found) == host else None


def workspace_path(workspace: Workspace, port: int | None = None) -> str:
    """The path form of a workspace, or of one of its ports."""
    return f"/ws/{workspace.id}/" + (f"ports/{port}/" if port else "")


async def ticket_link(services: Services, caller: Caller, *, host: str, path: str) -> Ticket:
    """A one-time link for the caller itself."""
    secret, expires = await services.accounts.issue_ticket(caller.user, host=host, path=path, caller=caller)
    return Ticket(url=services.listen.url(host, f"{TICKET_PATH}?ticket={secret}"), expires_at=moment(expires))


def _host(hosts: Hosts, found: WorkspaceHost) -> str:
    if found.port is None:
        return hosts.workspace(found.name, found.owner)
    return hosts.port(found.name, found.owner, found.port)


def _port(text: str) -> int | None:
    digits = text.removeprefix("p")
    if digits == text or not digits.isascii() or not digits.isdecimal() or len(digits) > len(str(MAX_PORT)):
        return None
    port = int(digits)
    return port if 0 < port <= MAX_PORT else None
