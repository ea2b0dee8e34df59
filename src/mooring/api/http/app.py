"""The application: every router, one handler for every error, and what holds for every answer."""

from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mooring.api.console import module_views, views
from mooring.api.console.pages import Pages, is_for_a_person
from mooring.api.http import (
    doors,
    events,
    exec,  # noqa: A004
    gateway,
    health,
    me,
    metrics,
    modules,
    problem,
    routes,
    templates,
    users,
    workspaces,
)
from mooring.api.http.auth import Calling
from mooring.api.http.limits import Bounded
from mooring.api.http.problem import answer, problems
from mooring.api.http.schemas import Problem
from mooring.api.http.services import Services
from mooring.errors import MooringError, Unauthenticated

_ERRORS = (MooringError, HTTPException, RequestValidationError, WebSocketRequestValidationError, Exception)


def create_app(services: Services) -> FastAPI:
    """The API and the console's pages, calling `services`."""
    handlers: dict[Any, Any] = dict.fromkeys(_ERRORS, _refused)
    app = FastAPI(
        title="Mooring",
        version="1",
        description="Workspaces, routes and accounts of one Mooring. `docs/reference/api.md` explains it.",
        # Its own paths would be open to everybody and load scripts from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers,
        routes=[*_routes()],
    )
    app.state.services = services
    app.add_middleware(Bounded)
    app.add_middleware(Guarded)
    app.add_middleware(metrics.Counted, registry=services.registry, paths=_paths())
    return app


async def _refused(connection: Request | WebSocket, error: Exception) -> Response | None:
    """Any error: to a person whose browser shows the answer a page, else the problem document."""
    response = await answer(connection, error)
    if not isinstance(connection, Request) or not is_for_a_person(connection):
        return response
    services: Services = connection.app.state.services
    if isinstance(error, Unauthenticated):
        return Pages().sign_in(services)
    found, headers = problem.describe(error)
    page = Pages().message(services, found.status, found.title, found.detail)
    page.headers.update(headers)
    return page


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Every route, for all applications of a process: FastAPI takes a tenth of a second to make them."""
    router = APIRouter()
    for part in (health, metrics, doors, views, module_views):
        router.include_router(part.router)
    router.include_router(_api())
    return tuple(router.routes)


@cache
def _paths() -> dict[int, str]:
    """The whole path of each route by its identity: it knows only what stands behind its routers' prefixes."""
    return {id(context.route): context.path for context in iter_route_contexts(_routes()) if context.path}


class Guarded:
    """What holds for every answer: nobody guesses its type, frames it or holds its window, no cache keeps it."""

    _HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
    )
    _NO_STORE = (b"cache-control", b"no-store")

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *self._HEADERS]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(self._NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, guarded)


def _api() -> APIRouter:
    api = APIRouter(prefix="/api/v1")
    for part in (me, workspaces, events, exec, templates, routes, users, modules, gateway):
        api.include_router(part.router)

    @api.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request, caller: Calling) -> Response:  # noqa: ARG001 - shown to nobody without one
        """The description of this API."""
        return JSONResponse(describe(request.app))

    return api


def describe(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1, with the documents of errors and the ways to sign in."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"bearer": []}]
        for path in ("/healthz", "/readyz"):
            schema["paths"][path]["get"]["security"] = []
        for theirs in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(theirs, None)
        for operation in (operation for item in schema["paths"].values() for operation in item.values()):
            # FastAPI adds its own document of a mistake wherever a path has a parameter; ours is sent.
            if "422" in operation["responses"]:
                operation["responses"]["422"] = problems(422)[422]
            if "requestBody" in operation:
                operation["responses"] |= {str(status): document for status, document in problems(400, 413).items()}
        app.openapi_schema = schema
    return app.openapi_schema
