"""The door: a plain ASGI application. Reads a request, asks the service, sends; decides nothing about modules."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs

from mooring.errors import MooringError, NotFound
from mooring.goproxy.access import EVERYBODY, Subject, segment
from mooring.goproxy.catalog import Catalog
from mooring.goproxy.gate import Gate
from mooring.goproxy.keeping import whole
from mooring.goproxy.names import Ask, SumdbAsk, parse
from mooring.goproxy.policy import Mark
from mooring.goproxy.ports import Answer
from mooring.goproxy.responses import (
    Message,
    Send,
    Wish,
    how_it_ended,
    refuse,
    reply,
    send_blob,
    send_flight,
    send_small,
    takes_gzip,
)
from mooring.goproxy.service import Proxy
from mooring.goproxy.telemetry import Served, Telemetry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_CACHED_ONLY = b"/cached-only"
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_LINES = (b"content-type", b"application/x-ndjson")


class Databases(Protocol):
    """The checksum databases that are reached through us."""

    async def answer(self, ask: SumdbAsk) -> bytes:
        """The file. Raises NotFound for a database that is not ours to proxy."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of. `elsewhere(ask)` is the address of what is not ours to serve."""

    proxy: Proxy
    databases: Databases
    gate: Gate
    catalog: Catalog
    telemetry: Telemetry
    elsewhere: Callable[[Ask], str]
    healthy: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Request:
    """One request; what it turned out to be is filled in as it is served."""

    method: str
    path: bytes
    query: bytes
    token: str
    authorization: bytes
    fetch: bool
    is_go: bool
    wish: Wish
    subject: Subject = EVERYBODY
    ask: Ask | SumdbAsk | None = None
    outcome: str = "answered"
    status: int = 200
    detail: str = ""
    began: float = field(default_factory=time.perf_counter)


class App:
    """The ASGI application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _request(scope)
        try:
            await self._serve(request, send)
        except MooringError as error:
            request.outcome, request.detail = error.code, error.detail
            request.status = await refuse(send, error)
        except BaseException as error:
            request.outcome, request.status, request.detail = how_it_ended(error)
            raise
        finally:
            seconds = time.perf_counter() - request.began
            subject = request.subject.name
            self._parts.telemetry.served(
                Served(request.ask, subject, request.status, request.outcome, seconds, request.detail)
            )

    async def _serve(self, request: _Request, send: Send) -> None:
        if request.method not in ("GET", "HEAD"):
            request.status = 405
            await reply(send, 405, [(b"allow", b"GET, HEAD"), _TEXT], b"only GET and HEAD are allowed\n")
            return
        if request.path == b"/-/healthz":
            # Asked by machines that have no token; it tells nothing.
            await self._parts.healthy()
            await reply(send, 200, [_TEXT], b"ok\n", head=request.wish.head)
            return
        request.subject = self._parts.gate.subject(request.authorization, request.token)
        if request.path.startswith(b"/-/") or request.path == b"/index":
            await self._serve_own(request, send)
            return
        request.ask = parse(request.path)
        if isinstance(request.ask, SumdbAsk):
            await self._serve_sumdb(request.ask, request, send)
        else:
            await self._serve_module(request.ask, request, send)

    async def _serve_own(self, request: _Request, send: Send) -> None:
        """Pages that are no part of the protocol; `-` begins no module path."""
        query = {key: values[-1] for key, values in parse_qs(request.query.decode("latin-1")).items()}
        may = self._parts.gate.may(request.subject)
        if request.path == b"/index":
            data, kind = await self._parts.catalog.index(query.get("since", ""), query.get("limit", ""), may), _LINES
        elif request.path == b"/-/catalog":
            data, kind = await self._parts.catalog.search(query.get("q", ""), query.get("limit", ""), may), _JSON
        elif request.path == b"/-/pulls":
            only = None if request.subject.owns_all else request.subject.name
            data, kind = self._parts.telemetry.document(may, only), _JSON
        elif request.path == b"/-/metrics":
            data, kind = self._parts.telemetry.text(), _TEXT
        else:
            raise NotFound("there is no such page")
        await reply(send, 200, [kind], data, head=request.wish.head)

    async def _serve_sumdb(self, ask: SumdbAsk, request: _Request, send: Send) -> None:
        self._parts.gate.admit_database(request.subject, ask)
        data = await self._parts.databases.answer(ask)
        kind = (b"content-type", b"application/octet-stream") if ask.rest.startswith("tile/") else _TEXT
        await reply(send, 200, [kind], data, head=request.wish.head)

    async def _serve_module(self, ask: Ask, request: _Request, send: Send) -> None:
        if self._parts.gate.admit(request.subject, ask) is Mark.direct:
            request.status, request.outcome = 302, "direct"
            location = (b"location", self._parts.elsewhere(ask).encode())
            await reply(send, 302, [location, _TEXT], b"not served by this proxy\n")
            return
        answer = await self._parts.proxy.get(ask, fetch=request.fetch, ahead=request.is_go)
        request.outcome = answer.outcome
        try:
            await self._send(send, ask, request, answer)
        finally:
            answer.close()

    async def _send(self, send: Send, ask: Ask, request: _Request, answer: Answer) -> None:
        if answer.flight is not None and (request.wish.head or request.wish.range or request.wish.whole):
            # These need the length, and only a verified file has one.
            await answer.flight.finished()
            request.status = await send_blob(send, ask, request.wish, answer.flight)
        elif answer.flight is not None:
            await send_flight(send, ask, answer.flight)
        elif not ask.immutable and self._parts.gate.reads_answers:
            data = answer.data if answer.blob is None else await whole(answer.blob)
            await send_small(send, ask, request.wish, self._parts.gate.allowed(ask, data))
        elif answer.blob is not None:
            request.status = await send_blob(send, ask, request.wish, answer.blob)
        else:
            await send_small(send, ask, request.wish, answer.data)


def _request(scope: Scope) -> _Request:
    headers = dict(scope["headers"])
    fetch = headers.get(b"disable-module-fetch", b"").strip().lower() != b"true"
    span = b""
    # Ranges are GET's alone (RFC 9110, 14.2). Nothing that we send has a validator: whoever names one has the first
    # part of somebody else's zip.
    if scope["method"] == "GET" and b"if-range" not in headers:
        span = headers.get(b"range", b"")
    path = scope["raw_path"].partition(b"?")[0].removeprefix(scope.get("root_path", "").encode())
    token, path = segment(path)
    if path.startswith(_CACHED_ONLY + b"/"):
        path, fetch = path.removeprefix(_CACHED_ONLY), False
    zero_copy = "http.response.zerocopysend" in scope.get("extensions", ())
    gzip = takes_gzip(headers.get(b"accept-encoding", b""))
    wish = Wish(scope["method"] == "HEAD", gzip, span, scope.get("http_version") == "1.0", zero_copy)
    authorization = headers.get(b"authorization", b"")
    # What looks for updates asks for the infos of a hundred versions, and for none of their go.mod files.
    is_go = headers.get(b"user-agent", b"").startswith(b"Go-http-client/")
    return _Request(scope["method"], path, scope["query_string"], token, authorization, fetch, is_go, wish)
