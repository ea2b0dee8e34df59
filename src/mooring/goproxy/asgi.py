"""The door: a plain ASGI application. Reads a request, asks the service, sends; decides nothing about modules."""

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from mooring.errors import MooringError, NotFound, outcome
from mooring.goproxy.flight import Flight
from mooring.goproxy.names import Ask, Kind, SumdbAsk, parse
from mooring.goproxy.ports import Blob
from mooring.goproxy.service import Proxy

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_CHUNK = 256 * 1024
_COMPRESS_FROM = 1024
_RANGE = re.compile(rb"bytes=(\d*)-(\d*)")
_TYPES = {
    Kind.list: b"text/plain; charset=utf-8",
    Kind.latest: b"application/json",
    Kind.info: b"application/json",
    Kind.mod: b"text/plain; charset=utf-8",
    Kind.zip: b"application/zip",
}
_STATUS = {"mismatch": 502, "bad_zip": 502, "bad_tree": 502, "bad_note": 502, "bad_upstream": 502, "no_space": 503}
_REASON_LINES = 8
_REASON_BYTES = 640
_CACHED_ONLY = b"/cached-only"


class Databases(Protocol):
    """The checksum databases that are reached through us."""

    async def answer(self, ask: SumdbAsk) -> bytes:
        """The file. Raises NotFound for a database that is not ours to proxy."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: bytes
    fetch: bool
    gzip: bool
    range: bytes


class App:
    """The ASGI application."""

    def __init__(self, proxy: Proxy, databases: Databases) -> None:
        self._proxy = proxy
        self._databases = databases

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _request(scope)
        try:
            await self._serve(request, send)
        except MooringError as error:
            await _refuse(send, error)

    async def _serve(self, request: _Request, send: Send) -> None:
        if request.method not in ("GET", "HEAD"):
            await _reply(send, 405, [(b"allow", b"GET, HEAD")], b"only GET and HEAD are allowed\n")
            return
        ask = parse(request.path)
        if isinstance(ask, SumdbAsk):
            await self._serve_sumdb(ask, request, send)
        else:
            await self._serve_module(ask, request, send)

    async def _serve_sumdb(self, ask: SumdbAsk, request: _Request, send: Send) -> None:
        data = await self._databases.answer(ask)
        kind = b"application/octet-stream" if ask.rest.startswith("tile/") else b"text/plain; charset=utf-8"
        await _reply(send, 200, [(b"content-type", kind)], data, head=request.method == "HEAD")

    async def _serve_module(self, ask: Ask, request: _Request, send: Send) -> None:
        answer = await self._proxy.get(ask, fetch=request.fetch)
        if answer.blob is not None:
            try:
                await _send_blob(send, ask, request, answer.blob)
            finally:
                answer.blob.close()
        elif answer.flight is not None:
            try:
                await self._send_flight(send, ask, request, answer.flight)
            finally:
                answer.flight.leave()
        else:
            await _send_small(send, ask, request, answer.data)

    async def _send_flight(self, send: Send, ask: Ask, request: _Request, flight: Flight) -> None:
        if request.method == "HEAD" or request.range:
            # Both need the length, and only a verified file has one.
            await flight.finished()
            await self._serve_module(ask, request, send)
            return
        await flight.begun()
        headers = _headers(ask)
        if flight.size is not None:
            headers.append((b"content-length", str(flight.size).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for chunk in flight.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except MooringError as error:
            # The server closes a connection whose answer was not finished: the receiver sees that it is cut off.
            raise _CutOff(error.detail) from error
        await send({"type": "http.response.body", "body": b""})


class _CutOff(Exception):
    """Ends an answer that has begun; the server logs it and closes the connection."""


def _request(scope: Scope) -> _Request:
    accepts, fetch, span = b"", True, b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            accepts = value
        elif name == b"disable-module-fetch":
            fetch = value.strip().lower() != b"true"
        elif name == b"range":
            span = value
    path = scope["raw_path"].partition(b"?")[0].removeprefix(scope.get("root_path", "").encode())
    if path.startswith(_CACHED_ONLY + b"/"):
        path, fetch = path.removeprefix(_CACHED_ONLY), False
    return _Request(scope["method"], path, fetch, b"gzip" in accepts, span)


def _headers(ask: Ask) -> Headers:
    headers = [(b"content-type", _TYPES[ask.kind])]
    if ask.immutable:
        headers.append((b"cache-control", b"max-age=31536000, immutable"))
    if ask.kind is Kind.zip:
        headers.append((b"accept-ranges", b"bytes"))
    return headers


async def _send_blob(send: Send, ask: Ask, request: _Request, blob: Blob) -> None:
    if ask.kind is not Kind.zip:
        await _send_small(send, ask, request, await blob.read(0, blob.size))
        return
    start, end = 0, blob.size
    headers, status = _headers(ask), 200
    if request.range and (span := _span(request.range, blob.size)) is not None:
        start, end = span
        status = 206 if start < end else 416
        shown = f"bytes {start}-{end - 1}/{blob.size}" if start < end else f"bytes */{blob.size}"
        headers.append((b"content-range", shown.encode()))
    headers.append((b"content-length", str(end - start).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if request.method != "HEAD":
        while start < end:
            chunk = await blob.read(start, min(_CHUNK, end - start))
            if not chunk:
                raise _CutOff(f"{ask.label} became shorter while it was read")
            start += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": start < end})
            # Reading a cached file never waits: without this one client's zip would hold up everybody else.
            await asyncio.sleep(0)
    if start >= end and (request.method == "HEAD" or status == 416):  # noqa: PLR2004 - HTTP's number
        await send({"type": "http.response.body", "body": b""})


def _span(value: bytes, size: int) -> tuple[int, int] | None:
    """From and to of a range with one part; an empty one cannot be satisfied. None: ignore the header (RFC 9110)."""
    match = _RANGE.fullmatch(value.strip())
    if match is None or match[1] == match[2] == b"":
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return (start, end) if start < size else (0, 0)


async def _send_small(send: Send, ask: Ask, request: _Request, data: bytes) -> None:
    headers = _headers(ask)
    if len(data) >= _COMPRESS_FROM:
        headers.append((b"vary", b"accept-encoding"))
        if request.gzip:
            data = gzip.compress(data, 5, mtime=0)
            headers.append((b"content-encoding", b"gzip"))
    await _reply(send, 200, headers, data, head=request.method == "HEAD")


async def _refuse(send: Send, error: MooringError) -> None:
    """The reason, as the go command shows it: plain UTF-8, at most 8 lines and 648 bytes."""
    status = _STATUS.get(error.code) or outcome(error).http
    lines = "\n".join(error.detail.splitlines()[:_REASON_LINES])
    text = lines.encode()[:_REASON_BYTES].decode(errors="ignore").encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if isinstance(error, NotFound):
        headers.append((b"cache-control", b"max-age=10"))
    await _reply(send, status, headers, text)


async def _reply(send: Send, status: int, headers: Headers, data: bytes, *, head: bool = False) -> None:
    headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else data})
