"""The console's pages about Go modules: what is kept, who pulls it, why it failed; an administrator pins and evicts."""

from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from mooring.accounts.credentials import Caller
from mooring.api.console.pages import Pages, see_other
from mooring.api.http import modules
from mooring.api.http.auth import Wired, admin_of, check_origin, cookie_caller
from mooring.api.http.module_schemas import Evict
from mooring.api.http.modules import ModulePath, Text, Version
from mooring.api.http.paging import Cursor
from mooring.api.http.services import Services
from mooring.errors import MooringError, Unauthenticated, Unavailable, outcome

router = APIRouter(prefix="/modules", include_in_schema=False)
pages = Pages()
_MODULES = 100
_VERSIONS = 50


@router.get("")
async def catalog(request: Request, services: Wired, q: Text = "", cursor: Cursor = None) -> Response:
    """The proxy as a whole, and the modules that are kept."""
    try:
        caller = await cookie_caller(request, services.hosts.console)
        seen = await modules.overview(caller, services)
        return pages.modules(caller.user, seen, await modules.page(caller, services, q.strip(), cursor, _MODULES), q)
    except MooringError as error:
        return await _cannot(request, services, error)


@router.get("/{module:path}/@evict")
async def ask_evict(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """What would go and what would stay, with the button."""
    try:
        caller = await _admin(request, services)
        body = Evict(version=version, dry_run=True)
        return pages.evict(caller.user, module, version, await modules.evict(caller, services, module, body))
    except MooringError as error:
        return await _cannot(request, services, error)


@router.post("/{module:path}/@evict")
async def evict(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """The button that evicts."""
    try:
        caller = await _changing(request, services)
        await modules.evict(caller, services, module, Evict(version=version))
        return _back(module)
    except MooringError as error:
        return await _cannot(request, services, error)


@router.post("/{module:path}/@pin")
async def pin(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """The button that pins."""
    try:
        await modules.pin(await _changing(request, services), services, module, version)
        return _back(module)
    except MooringError as error:
        return await _cannot(request, services, error)


@router.post("/{module:path}/@unpin")
async def unpin(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """The button that unpins."""
    try:
        await modules.unpin(await _changing(request, services), services, module, version)
        return _back(module)
    except MooringError as error:
        return await _cannot(request, services, error)


# Last: a path takes everything that is none of the above.
@router.get("/{module:path}")
async def show(request: Request, services: Wired, module: ModulePath, cursor: Cursor = None) -> Response:
    """A module: its versions, who pulls it, why it failed."""
    try:
        caller = await cookie_caller(request, services.hosts.console)
        found = await modules.show(caller, services, module, cursor, _VERSIONS)
        pulls = await modules.pulls(caller, services, module)
        return pages.module(caller, found, pulls.items)
    except MooringError as error:
        return await _cannot(request, services, error)


async def _admin(request: Request, services: Services) -> Caller:
    return await admin_of(await cookie_caller(request, services.hosts.console))


async def _changing(request: Request, services: Services) -> Caller:
    caller = await _admin(request, services)
    check_origin(request, services.hosts.console)
    return caller


def _back(module: str) -> Response:
    return see_other(f"/modules/{quote(module)}")


async def _cannot(request: Request, services: Services, error: MooringError) -> Response:
    if isinstance(error, Unauthenticated):
        return pages.sign_in(services)
    row = outcome(error)
    if isinstance(error, Unavailable):
        caller = await cookie_caller(request, services.hosts.console)
        return pages.modules_away(caller.user, row.http, error.detail)
    return pages.message(services, row.http, row.title, error.detail)
