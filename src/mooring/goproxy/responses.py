"""How answers are sent: whole or in parts, compressed where it pays, and why one was refused."""

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from mooring.errors import MooringError, NotFound, Unauthenticated, outcome
from mooring.goproxy.flight import Flight
from mooring.goproxy.names import Ask, Kind
from mooring.goproxy.ports import Blob

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Ended = Callable[[BaseException | None], None]
"""To be told what ended an answer; None: nothing did before the client's socket had all of it."""
Hit = tuple[tuple[tuple[bytes, bytes], ...], bytes, Ended]
"""Headers and body of a whole answer, and who is told how it ended."""

_CHUNK = 256 * 1024
_COMPRESS_FROM = 1024
_WHOLE = 256 * 1024
"""Bytes that are held in memory for one client; a larger go.mod goes out as it is, in parts."""
# Python refuses to read numbers of thousands of digits; no file has that many bytes.
_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})")
_NEVER = re.compile(rb"q=0(\.0*)?")
_TYPES = {
    Kind.list: (b"content-type", b"text/plain; charset=utf-8"),
    Kind.latest: (b"content-type", b"application/json"),
    Kind.info: (b"content-type", b"application/json"),
    Kind.mod: (b"content-type", b"text/plain; charset=utf-8"),
    Kind.zip: (b"content-type", b"application/zip"),
}
_STATUS = {"mismatch": 502, "bad_zip": 502, "bad_tree": 502, "bad_note": 502, "bad_upstream": 502, "no_space": 503}
_REASON_LINES = 8
_REASON_BYTES = 640


class CutOff(Exception):
    """Ends an answer that has begun; the server closes the connection, so the receiver sees that it is cut off."""


def how_it_ended(error: BaseException) -> tuple[str, int, str]:
    """Of an answer that nobody got, or not all of it: the outcome, the status and the detail for log and counts."""
    if isinstance(error, CutOff):
        return "cut_off", 502, str(error)
    if isinstance(error, asyncio.CancelledError):
        return "cut_off", 502, "the proxy is stopping"
    if isinstance(error, ConnectionError):
        return "gone", 499, ""
    return "internal", 500, ""


@dataclass(slots=True)
class Wish:
    """How the client wants its answer, and what the server can do for it."""

    head: bool = False
    gzip: bool = False
    range: bytes = b""
    whole: bool = False
    """Whether nothing may be sent before all of it is right: HTTP/1.0 has no way to say that it was cut off."""
    zero_copy: bool = False
    """Whether the server has the kernel send open files: ASGI's extension `http.response.zerocopysend`."""


def _for(ask: Ask) -> Headers:
    headers = [_TYPES[ask.kind]]
    if ask.immutable:
        headers.append((b"cache-control", b"max-age=31536000, immutable"))
    if ask.kind is Kind.zip:
        headers.append((b"accept-ranges", b"bytes"))
    return headers


async def send_flight(send: Send, ask: Ask, flight: Flight) -> None:
    """What a flight brings, as it comes."""
    await flight.begun()
    headers = _for(ask)
    if flight.size is not None:
        headers.append((b"content-length", str(flight.size).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        async for chunk in flight.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except MooringError as error:
        raise CutOff(error.detail) from error
    await send({"type": "http.response.body", "body": b""})


async def send_blob(send: Send, ask: Ask, wish: Wish, blob: Blob | Flight) -> int:
    """A stored file, or the part of it that is wanted. The status."""
    start = 0
    end = size = blob.size or 0
    if ask.kind is not Kind.zip and size <= _WHOLE:
        await send_small(send, ask, wish, await blob.read(0, size))
        return 200
    headers, status = _for(ask), 200
    if ask.kind is Kind.zip and wish.range and (span := _span(wish.range, size)) is not None:
        start, end = span
        if start == end:
            # Without the headers of the file: a cache would answer with this for a year.
            await reply(send, 416, [(b"content-range", f"bytes */{size}".encode())], b"")
            return 416
        status = 206
        headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
    headers.append((b"content-length", str(end - start).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if wish.head:
        await send({"type": "http.response.body", "body": b""})
        return status
    try:
        if wish.zero_copy and blob.descriptor is not None:
            file = {"file": blob.descriptor, "offset": start, "count": end - start}
            await send({"type": "http.response.zerocopysend", **file})
        else:
            await _send_parts(send, blob, start, end)
    except EOFError as error:
        raise CutOff(f"{ask.label} became shorter while it was read") from error
    return status


async def _send_parts(send: Send, blob: Blob | Flight, start: int, end: int) -> None:
    began = start
    while start < end:
        try:
            chunk = await blob.read(start, min(_CHUNK, end - start))
        except MooringError as error:
            if start == began:
                raise
            # Too late for a refusal: its words would be taken for the rest of the file.
            raise CutOff(error.detail) from error
        if not chunk:
            raise EOFError
        start += len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": start < end})
        if start < end:
            # Reading a cached file never waits: without this one client's zip would hold up everybody else.
            await asyncio.sleep(0)


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


def small_headers(ask: Ask, data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of `data` where it is all that was asked for."""
    return (*_for(ask), (b"content-length", b"%d" % len(data)))


def takes_gzip(accepted: bytes) -> bool:
    """Whether a client that sends this Accept-Encoding names gzip, and with a weight above 0 (RFC 9110, 12.5.3)."""
    for coding in accepted.lower().split(b","):
        name, *parameters = (part.strip() for part in coding.split(b";"))
        if name == b"gzip":
            return not any(_NEVER.fullmatch(parameter) for parameter in parameters)
    return False


async def send_small(send: Send, ask: Ask, wish: Wish, data: bytes) -> None:
    """A small file. Only lists, which grow, are compressed: a go.mod is a packet or two, and asked for most."""
    headers = _for(ask)
    if ask.kind is Kind.list and _COMPRESS_FROM <= len(data) <= _WHOLE:
        headers.append((b"vary", b"accept-encoding"))
        if wish.gzip:
            data = gzip.compress(data, 5, mtime=0)
            headers.append((b"content-encoding", b"gzip"))
    await reply(send, 200, headers, data, head=wish.head)


async def refuse(send: Send, error: MooringError) -> int:
    """The reason, as the go command shows it: plain UTF-8, at most 8 lines and 648 bytes. The status."""
    status = _STATUS.get(error.code) or outcome(error).http
    lines = "\n".join(error.detail.splitlines()[:_REASON_LINES])
    text = lines.encode()[:_REASON_BYTES].decode(errors="ignore").encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if isinstance(error, NotFound):
        headers.append((b"cache-control", b"max-age=10"))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b'Basic realm="Go modules"'))
    await reply(send, status, headers, text)
    return status


async def reply(send: Send, status: int, headers: Headers, data: bytes, *, head: bool = False) -> None:
    """A whole answer."""
    headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else data})
