"""Errors as `application/problem+json` (RFC 9457): one place turns any error into an answer."""

from typing import Any

import structlog
from fastapi import Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketState

from mooring.api.http.schemas import Problem
from mooring.errors import OUTCOMES, InvalidInput, MooringError, outcome
from mooring.model.wording import said

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# What HTTP itself refuses, before any of our code is asked: status → code, title, detail.
_HTTP = {
    400: ("bad_request", "Bad request", "the body cannot be read: it must be JSON in UTF-8, and not nested too deep"),
    404: ("not_found", "Not found", "there is nothing at this path"),
    405: ("method_not_allowed", "Method not allowed", "this path does not take this method"),
    413: ("too_large", "Too large", "the body is larger than this path takes"),
}
_BY_STATUS = {row.http: row.title for row in OUTCOMES.values()} | {code: row[1] for code, row in _HTTP.items()}


async def answer(connection: Request | WebSocket, error: Exception) -> Response | None:
    """The answer to a request that ended in `error`; what we did not foresee goes to the log, not to the caller."""
    response = render(error)
    if response.status_code >= 500:  # noqa: PLR2004 - the server's own faults
        # Our own errors say what is wrong; of a foreign one the place is what one needs.
        log.error(
            "request failed",
            path=connection.scope["path"],
            status=response.status_code,
            error=str(error),
            exc_info=None if isinstance(error, MooringError) else error,
        )
    if isinstance(connection, WebSocket) and connection.application_state is not WebSocketState.CONNECTING:
        # It is no HTTP exchange any more.
        await connection.close(1011)
        return None
    return response


def render(error: Exception) -> Response:
    """The problem document of `error` as an answer."""
    problem, headers = describe(error)
    return Response(problem.model_dump_json(exclude_none=True), problem.status, headers=headers, media_type=MEDIA_TYPE)


def describe(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The problem document of `error`, and the headers that go with it."""
    if isinstance(error, RequestValidationError | WebSocketRequestValidationError):
        error = _invalid(error)
    if isinstance(error, MooringError):
        row = outcome(error)
        headers = {"WWW-Authenticate": "Bearer"} if row.http == 401 else {}  # noqa: PLR2004
        if row.http == 503:  # noqa: PLR2004
            headers["Retry-After"] = "1"
        return Problem(
            title=row.title, status=row.http, code=error.code, detail=error.detail, field=error.field
        ), headers
    if isinstance(error, HTTPException) and error.status_code in _HTTP:
        code, title, detail = _HTTP[error.status_code]
        allow = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
        return Problem(title=title, status=error.status_code, code=code, detail=detail), allow
    return Problem(title="Internal error", status=500, code="internal", detail="the server's log says more"), {}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a path, for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _BY_STATUS[status], "content": content} for status in statuses}


def _invalid(error: RequestValidationError | WebSocketRequestValidationError) -> InvalidInput:
    """The first thing that is wrong, in our words: pydantic's texts name its own types and pages."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"][1:]]
    kind, text = str(first["type"]), said(first)
    if kind == "json_invalid":
        return InvalidInput(f"the body must be JSON: {first['ctx']['error']}")
    if kind in ("missing", "model_attributes_type") and not path:
        # What is sent as anything else, as `curl -d` does, is taken for text here.
        return InvalidInput("the body must be a JSON object, sent as Content-Type: application/json")
    field = ".".join(path)
    return InvalidInput(f"{field}: {text}" if field else text, field=field or None)
