"""Events and logs: as pages, and as server-sent events that resume where the client left off.

Source of the format: the HTML standard, section 9.2 (server-sent events).
"""

import codecs
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response

from mooring.accounts.credentials import Caller
from mooring.api.http import paging
from mooring.api.http.auth import Calling, Wired, as_subject
from mooring.api.http.paging import Cursor, Limit
from mooring.api.http.problem import problems
from mooring.api.http.render import event_document
from mooring.api.http.schemas import Event, Page
from mooring.api.http.services import Services
from mooring.api.http.stream import Stream, closing
from mooring.api.http.workspaces import Id
from mooring.errors import InvalidInput
from mooring.workspaces import ports

router = APIRouter(tags=["workspaces"], responses=problems(401, 403, 422, 503))
SSE = "text/event-stream"
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {SSE: {"schema": {"type": "string"}}}}}
_NUMBER = re.compile(r"\d{1,18}")


async def resumed(last_event_id: Annotated[str | None, Header(max_length=64)] = None) -> int | None:
    """Where the client left off.

    Raises:
        InvalidInput: for an id that is none of ours.
    """
    if not last_event_id:
        return None
    if _NUMBER.fullmatch(last_event_id) is None:
        raise InvalidInput("Last-Event-ID must be the id of an event", field="Last-Event-ID")
    return int(last_event_id)


Resumed = Annotated[int | None, Depends(resumed)]
Accept = Annotated[str, Header(max_length=256)]
After = Annotated[int, Query(ge=0, le=2**62, description="The id of the last event seen.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of a history that is asked for: a page behind the event `after`, or all from there as it comes."""

    after: int
    limit: int
    streams: bool


async def wanted(
    *, last: Resumed, after: After = 0, cursor: Cursor = None, limit: Limit = 100, accept: Accept = ""
) -> Wanted:
    """What the request asks for; `Last-Event-ID` is for streams, a cursor for pages.

    Raises:
        InvalidInput: for a cursor that is none of ours.
    """
    if SSE in accept:
        return Wanted(after if last is None else last, limit, streams=True)
    position = paging.decode(cursor)
    return Wanted(after if position is None else _position(position), limit, streams=False)


Part = Annotated[Wanted, Depends(wanted)]


@router.get("/events", response_model=Page[Event], responses=_STREAM)
async def all_events(caller: Calling, services: Wired, part: Part) -> Page[Event] | Response:
    """The history of all the caller's workspaces, oldest first: a page, or server-sent events."""
    subject = as_subject(caller)
    if part.streams:
        return sse(services, caller, _events(services.workspaces.follow(subject, None, after=part.after)))
    found, end = await services.workspaces.history(subject, after=part.after, limit=part.limit)
    return Page(items=tuple(map(event_document, found)), cursor=paging.encode(None if end is None else str(end)))


@router.get("/workspaces/{workspace_id}/events", response_model=Page[Event], responses=_STREAM | problems(404))
async def events(workspace_id: Id, caller: Calling, services: Wired, part: Part) -> Page[Event] | Response:
    """Its history, oldest first: a page, or server-sent events when these are accepted."""
    subject = as_subject(caller)
    if part.streams:
        await services.workspaces.get(subject, workspace_id)
        return sse(services, caller, _events(services.workspaces.follow(subject, workspace_id, after=part.after)))
    found = await services.workspaces.events(subject, workspace_id, after=part.after, limit=part.limit)
    end = str(found[-1].id) if len(found) == part.limit else None
    return Page(items=tuple(map(event_document, found)), cursor=paging.encode(end))


@router.get("/workspaces/{workspace_id}/logs", response_class=Response, responses=_STREAM | problems(404))
async def logs(  # noqa: PLR0913 - one parameter a part of the request
    workspace_id: Id,
    caller: Calling,
    services: Wired,
    *,
    last: Resumed,
    offset: Annotated[int, Query(ge=0, le=2**62, description="The byte to begin at.")] = 0,
    follow: Annotated[bool, Query(description="Wait for more at the end.")] = True,
    accept: Accept = "",
) -> Response:
    """The output of its editor: server-sent events, or the bytes themselves as `text/plain`."""
    subject = as_subject(caller)
    start = offset if last is None else last
    chunks = await services.workspaces.logs(subject, workspace_id, offset=start, follow=follow)
    # Of a workspace that was removed nothing is written any more, which its runtime does not tell who reads.
    gone = services.workspaces.until_removed(workspace_id)
    if "text/plain" in accept and SSE not in accept:
        return stream(services, caller, _bytes(chunks), gone, media_type="text/plain; charset=utf-8")
    return sse(services, caller, _log_events(chunks), gone)


def sse(services: Services, caller: Caller, items: AsyncIterator[bytes], *ends: Awaitable[object]) -> Stream:
    """Server-sent events, with a comment in quiet times so that no proxy takes the connection for dead."""
    return stream(services, caller, items, *ends, media_type=SSE, ping=b": quiet\n\n")


def stream(
    services: Services,
    caller: Caller,
    items: AsyncIterator[bytes],
    *ends: Awaitable[object],
    media_type: str,
    ping: bytes = b"",
) -> Stream:
    """An answer that ends with the credential that asked for it, with the server, and with the first of `ends`."""
    all_ends = (services.accounts.until_invalid(caller), services.closing.wait(), *ends)
    return Stream(items, ends=all_ends, media_type=media_type, ping=ping)


def sse_message(data: object, *, id: int | None = None, event: str = "") -> bytes:  # noqa: A002 - the format's word
    """One message; JSON has no line breaks, which would end a field."""
    head = (f"id: {id}\n" if id is not None else "") + (f"event: {event}\n" if event else "")
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"


async def _events(events: AsyncIterator[ports.Event]) -> AsyncIterator[bytes]:
    async with closing(events) as items:
        async for event in items:
            yield sse_message(event_document(event).model_dump(mode="json"), id=event.id)


async def _log_events(chunks: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async with closing(chunks) as items:
        async for end, chunk in items:
            text = decoder.decode(chunk)
            # A character that was cut in two belongs to the next message: resuming here must read it whole.
            held = len(decoder.getstate()[0])
            if text:
                yield sse_message({"text": text}, id=end - held)
    yield sse_message({}, event="end")


async def _bytes(chunks: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[bytes]:
    async with closing(chunks) as items:
        async for _, chunk in items:
            yield chunk


def _position(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise InvalidInput("cursor must be one that a page had", field="cursor")
    return int(text)
