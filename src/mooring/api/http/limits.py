"""What is refused before anybody looks at it: bodies of strangers and without end, control characters in an address.

A body is counted as it comes, since a length that is announced need not be true, or there. Reading a document of 16 MiB
takes seconds and hundreds of megabytes, and FastAPI reads it before it asks who sent it.
"""

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mooring.api.http.auth import SAFE_METHODS, admin_of, caller_of, gateway_of
from mooring.api.http.problem import answer, render
from mooring.errors import InvalidInput, MooringError

MOST = 2**20
"""A workspace with the largest environment is a tenth of it."""
MOST_TABLE = 16 * 2**20
"""20,000 routes of a usual size, or the counters of as many."""
# No id or name of ours holds one, and PostgreSQL refuses NUL in any text. A command in a query may hold line breaks.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUL = b"%00"
REFUSED = "mooring.refused"
"""In the scope of a request that was refused here: no route was looked for."""
_API = "/api/v1/"
_GATEWAY = "/api/v1/gateway/"
_SECTIONS = "/api/v1/routes/sections/"
_TABLES = (_SECTIONS, "/api/v1/gateway/report", "/api/v1/gateway/table")


class Bounded:
    """Refuses bodies of strangers, one that is too large before it is read or as soon as it is; and bad addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _CONTROL.search(scope["path"]) or _NUL in scope["query_string"]:
            scope[REFUSED] = True
            error = InvalidInput("the address must hold no control character", field="path")
            await render(error)(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] not in SAFE_METHODS and (refusal := await _refusal(Request(scope))) is not None:
            scope[REFUSED] = True
            await refusal(scope, receive, send)
            return
        most = MOST_TABLE if scope["path"].startswith(_TABLES) else MOST
        announced = Headers(scope=scope).get("content-length", "0")
        left = most

        async def bounded() -> Message:
            nonlocal left
            if announced.isdecimal() and int(announced) > most:
                raise HTTPException(413)
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413)
            return message

        await self._app(scope, bounded, send)


async def _refusal(request: Request) -> Response | None:
    """The answer to somebody who may send no document there; None for everybody else."""
    path = request.scope["path"]
    try:
        if path.startswith(_GATEWAY):
            await gateway_of(request)
        elif path.startswith(_SECTIONS):
            await admin_of(await caller_of(request))
        elif path.startswith(_API):
            await caller_of(request)
    except MooringError as error:
        return await answer(request, error)
    return None
