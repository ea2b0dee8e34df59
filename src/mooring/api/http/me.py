"""`/me`: who is calling, and the way of a signed-in person into the console."""

from fastapi import APIRouter

from mooring.api.http.auth import Calling, Wired
from mooring.api.http.documents import DocumentRoute
from mooring.api.http.links import ticket_link
from mooring.api.http.problem import problems
from mooring.api.http.schemas import ConsoleTicketCreate, Me, Ticket

router = APIRouter(prefix="/me", tags=["me"], responses=problems(401), route_class=DocumentRoute)


@router.get("")
async def show(caller: Calling, services: Wired) -> Me:
    """Who is calling, and with what."""
    url = services.listen.url(services.hosts.console)
    return Me(name=caller.user, role=caller.role, credential=caller.credential, console_url=url)


@router.post("/ticket", status_code=201, responses=problems(403, 422))
async def ticket(caller: Calling, services: Wired, body: ConsoleTicketCreate) -> Ticket:
    """A link that signs one browser in at the console, once, within a minute."""
    return await ticket_link(services, caller, host=services.hosts.console, path=body.next)
