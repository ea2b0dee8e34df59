"""The console's pages about Go modules: what is kept, who pulls it, why it failed; an administrator pins and evicts."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from mooring.accounts.credentials import Caller
from mooring.api.console.pages import Pages, is_for_a_person, see_other
from mooring.api.http import modules
from mooring.api.http.auth import Wired, admin_of, check_origin, cookie_caller, services_of
from mooring.api.http.module_schemas import Evict
from mooring.api.http.modules import ModulePath, Text, Version
from mooring.api.http.paging import Cursor
from mooring.api.http.problem import describe
from mooring.api.http.services import Services
from mooring.errors import MooringError, Unavailable

pages = Pages()
_MODULES = 100
_VERSIONS = 50


class _ModulesRoute(APIRoute):
    """Who is signed in keeps the way to the workspaces while the module proxy is away."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The view, with that error answered."""
        view = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await view(request)
            except Unavailable as error:
                if not is_for_a_person(request):
                    raise
                return await _away(request, error)

        return answer


async def _away(request: Request, error: Unavailable) -> Response:
    try:
        caller = await cookie_caller(request, services_of(request).hosts.console)
    except MooringError:
        # It is the database that is away, or the session ended meanwhile: of the two the first error says more.
        raise error from None
    found, headers = describe(error)
    page = pages.modules_away(caller.user, found.status, error.detail)
    page.headers.update(headers)
    return page


router = APIRouter(prefix="/modules", include_in_schema=False, route_class=_ModulesRoute)


@router.get("")
async def catalog(request: Request, services: Wired, q: Text = "", cursor: Cursor = None) -> Response:
    """The proxy as a whole, and the modules that are kept."""
    caller = await cookie_caller(request, services.hosts.console)
    seen = await modules.overview(caller, services)
    return pages.modules(caller.user, seen, await modules.page(caller, services, q.strip(), cursor, _MODULES), q)


@router.get("/{module:path}/@evict")
async def ask_evict(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """What would go and what would stay, with the button."""
    caller = await _admin(request, services)
    body = Evict(version=version, dry_run=True)
    return pages.evict(caller.user, module, version, await modules.evict(caller, services, module, body))


@router.post("/{module:path}/@evict")
async def evict(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """The button that evicts."""
    caller = await _changing(request, services)
    await modules.evict(caller, services, module, Evict(version=version))
    return _back(module)


@router.post("/{module:path}/@pin")
async def pin(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """The button that pins."""
    await modules.pin(await _changing(request, services), services, module, version)
    return _back(module)


@router.post("/{module:path}/@unpin")
async def unpin(request: Request, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """The button that unpins."""
    await modules.unpin(await _changing(request, services), services, module, version)
    return _back(module)


# Last: a path takes everything that is none of the above.
@router.get("/{module:path}")
async def show(request: Request, services: Wired, module: ModulePath, cursor: Cursor = None) -> Response:
    """A module: its versions, who pulls it, why it failed."""
    caller = await cookie_caller(request, services.hosts.console)
    found = await modules.show(caller, services, module, cursor, _VERSIONS)
    pulls = await modules.pulls(caller, services, module)
    return pages.module(caller, found, pulls.items)


async def _admin(request: Request, services: Services) -> Caller:
    return await admin_of(await cookie_caller(request, services.hosts.console))


async def _changing(request: Request, services: Services) -> Caller:
    caller = await _admin(request, services)
    check_origin(request, services.hosts.console)
    return caller


def _back(module: str) -> Response:
    return see_other(f"/modules/{quote(module)}")
