"""A client's connection: finds requests in what arrives (RFC 9112), and has them answered one after the other."""

import asyncio
import os
from collections import deque
from math import inf
from typing import Protocol
from urllib.parse import unquote_to_bytes

import httptools
import structlog

from mooring.goproxy.responses import CutOff, Ended
from mooring.server import patience
from mooring.server.exchange import App, Exchange, Scope, kept_head, receive
from mooring.server.turn import Turn
from mooring.server.usual import ShortWay, Usual

log = structlog.get_logger(__name__)

_JOINED = 64 * 1024
"""Bytes that are copied rather than sent by a call that takes several pieces."""
_PARKED = 64 * 1024
"""Bytes of a file that wait in memory for a client whose socket is full."""
_LOOK = 4 * 1024
"""Bytes that are looked at in one go: requests that wait for their turn take twenty times the memory of their bytes."""
_ASGI = {"version": "3.0", "spec_version": "2.4"}


class House(Protocol):
    """What all connections share."""

    app: App
    hits: ShortWay | None

    def date(self) -> bytes:
        """The Date line."""

    def entered(self, connection: "Connection") -> None:
        """One more; its task is to be run."""

    def left(self, connection: "Connection") -> None:
        """One less."""


class Connection(asyncio.Protocol):
    """One client. `serve` is its task: it waits for requests, and is run by what brings them."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop) -> None:
        self.deadline = inf
        """When this connection ends unless something happens; of the loop's clock."""
        self._house = house
        self._loop = loop
        self._turn = Turn(loop)
        self._requests: deque[Exchange] = deque()
        self._now: Exchange | None = None
        self._busy = self._deaf = self._last = self._body = self._lost = self._full = False
        self._stopping = self._cut = False
        self._behind: Ended | None = None
        self._room: asyncio.Future[None] | None = None
        self._unread = b""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = self._found = False
        self._fed = 0
        self._usual = Usual()

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client; nothing may ever come from it."""
        self._transport = transport
        # What the kernel does not take is waited for, before anything more is read from a file.
        transport.set_write_buffer_limits(high=1)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._fd = -1 if self._tls else transport.get_extra_info("socket").fileno()
        self._extensions: dict[str, dict[str, str]] = {} if self._tls else {"http.response.zerocopysend": {}}
        self._parser = httptools.HttpRequestParser(self)
        # What comes after the last request is not looked at; refused, that request would have no answer.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._wait(patience.HEAD_S)
        self._house.entered(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's parameter
        """The end. Whoever sends to this client hears of it."""
        self._lost = True
        # It holds methods of this object, which would both stay until the collector looks.
        del self._parser
        self._house.left(self)
        self.resume_writing()
        self._turn.take()

    def eof_received(self) -> bool:
        """It sends no more. An answer that has begun is finished: whether anybody still reads shows by that alone."""
        self._deaf = self._last = True
        self._body = False
        return not self._tls and (self._full or (self._now is not None and self._now.begun))

    def pause_writing(self) -> None:
        """The client's socket is full."""
        self._full = True

    def resume_writing(self) -> None:
        """It has taken everything."""
        self._full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Any piece of any number of requests."""
        if self._deaf:
            return
        hits = self._house.hits
        plain = not (self._busy or self._requests or self._unread or self._in_head or self._last)
        path = self._usual.path(data) if hits and plain else None
        if hits and path is not None and self._hit(hits, path):
            return
        self._unread += data
        self._look()
        one = len(self._requests) == 1 and not (self._unread or self._in_head or self._last)
        if hits and plain and path is None and one:
            self._usual.learn(data, dict(self._requests[0].scope["headers"]))
        self._turn.take()
        if self._requests:
            self._transport.pause_reading()

    def _hit(self, hits: ShortWay, path: bytes) -> bool:
        """Answer at once what can be; the parser has nothing of a request, and the task waits for one."""
        found = hits(path, self._usual.authorization)
        if found is None:
            return False
        headers, data, ended = found
        self._put(kept_head(self._house.date(), headers), data)
        if self._full:
            # This call cannot wait until the client has read; the task can.
            self._behind = ended
            self._turn.take()
        else:
            ended(None)
            self._wait(patience.IDLE_S)
        return True

    def _look(self) -> None:
        """Find what is to be answered next in what has arrived."""
        while self._unread and not (self._requests or self._last or self._lost):
            data, self._unread = self._unread[:_LOOK], self._unread[_LOOK:]
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._fed += len(data)
        self._found = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer (h2c, a WebSocket) that is not taken; what follows the request is in a protocol we do not speak.
            self._deaf = self._last = True
        except httptools.HttpParserError:
            self._refuse(b"400 Bad Request", b"The request is not one of HTTP/1.1.\n")
        if self._found or not self._in_head:
            # Where in this piece the next head began nobody knows.
            self._fed = 0
        elif self._fed > patience.HEAD_BYTES:
            self._too_long()
        elif self._fed == len(data) and not self._busy:
            self._wait(patience.HEAD_S)

    # What the parser finds.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which nobody sees."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """All that an answer needs."""
        headers, self._headers, self._in_head = self._headers, [], False
        if self._last:
            return
        self._found = True
        # Other requests may have been in the same piece.
        if self._fed > patience.HEAD_BYTES and _size(self._url, headers) > patience.HEAD_BYTES:
            self._too_long()
            return
        version = self._parser.get_http_version()
        if version == "1.0" or not self._parser.should_keep_alive():
            self._last = True
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
                self._deaf = self._last = self._body = True
        target = self._target()
        # How another version than these tells the end of an answer nobody knows; the parser takes 0.9 and 2.0, too.
        if target is None or version not in ("1.0", "1.1") or (hosts != 1 and version == "1.1"):
            why = b"The request is not one of HTTP/1.1, or has no valid target, or not one Host.\n"
            self._refuse(b"400 Bad Request", why)
            return
        self._requests.append(Exchange(self._scope(version, *target, headers), self))

    def _target(self) -> tuple[bytes, bytes] | None:
        """Path and query. None: malformed."""
        if self._url.startswith(b"/") and b"#" not in self._url:
            path, _, query = self._url.partition(b"?")
            return path, query
        try:
            url = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            return None
        return url.path or b"/", url.query or b""

    def _scope(self, version: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> Scope:
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "scheme": "https" if self._tls else "http",
            "path": unquote_to_bytes(path).decode(errors="replace")
            if b"%" in path
            else path.decode("ascii", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "extensions": self._extensions,
        }

    def _too_long(self) -> None:
        self._refuse(b"431 Request Header Fields Too Large", b"The request's headers are too long.\n")

    def _refuse(self, status: bytes, why: bytes) -> None:
        """End the connection: nobody knows where a next request would begin. What came before it is answered."""
        self._deaf = self._last = True
        if not self._busy and not self._requests and not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 %b\r\n%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, self._house.date(), len(why), why)
            )
            self._transport.close()

    # The task.

    async def serve(self) -> None:
        """Answer requests until there will be no more."""
        while not self._lost and (self._requests or not self._last):
            if not self._requests and not self._behind:
                await self._turn
                continue
            self._busy, self.deadline = True, inf
            if self._behind:
                ended, self._behind = self._behind, None
                await self._read(ended)
            else:
                self._now = self._requests.popleft()
                await self._answer(self._now)
            self._busy, self._now = False, None
            self._wait(patience.HEAD_S if self._in_head else patience.IDLE_S)
            self._look()
            if self._requests:
                # Somebody who sends a thousand requests at once is not served before everybody else.
                await asyncio.sleep(0)
            else:
                self._transport.resume_reading()
        self._end()

    async def _read(self, ended: Ended) -> None:
        """Wait until the client has taken an answer, and tell how that ended."""
        try:
            # Where it has read meanwhile nobody says so again: it would be ended for reading nothing.
            if self._full:
                await self._drained()
        except BaseException as error:
            ended(error)
            if not isinstance(error, CutOff | ConnectionError):
                raise
        else:
            ended(None)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._house.app(exchange.scope, receive, exchange.send)
        except (CutOff, ConnectionError):
            # Said in the access log. A connection that closes early is how a client learns of it.
            pass
        except Exception:
            log.exception("an answer failed")
        if exchange.done:
            return
        self._deaf = self._last = True
        self._requests.clear()
        if not exchange.begun and not self._lost:
            self._busy = False
            self._refuse(b"500 Internal Server Error", b"The server could not answer.\n")

    def _end(self) -> None:
        if self._body and not self._tls and not self._transport.is_closing():
            # Closed while its client still sends, a connection is reset, and the answer may be lost with it.
            self._wait(patience.BODY_S)
            self._transport.write_eof()
        else:
            self._close()

    def _close(self) -> None:
        if self._stopping:
            # Over TLS the other end is to say goodbye, too: one that sleeps would hold up the end of this process.
            self._wait(patience.GOODBYE_S)
        self._transport.close()

    def stop(self) -> None:
        """Take no further request; what is being answered is finished."""
        self._last = self._stopping = True
        if not self._busy and not self._requests:
            self._close()

    def abort(self) -> None:
        """End at once: the client took too long."""
        self._transport.abort()

    def cut_off(self) -> None:
        """End at once: this process does, and an answer under way did not fail by its client."""
        self._cut = True
        self._transport.abort()

    def _gone(self) -> Exception:
        return CutOff("the proxy is stopping") if self._cut else ConnectionResetError("the client is gone")

    def _wait(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds

    # What answers go out by.

    def date(self) -> bytes:
        """The Date line."""
        return self._house.date()

    def ends(self) -> bool:
        """Whether the answer under way is the last one."""
        return self._last and not self._requests

    async def write(self, head: bytes, data: bytes) -> None:
        """As `Wire` says."""
        if self._transport.is_closing():
            raise self._gone()
        self._put(head, data)
        if self._full:
            await self._drained()

    def _put(self, head: bytes, data: bytes) -> None:
        if not head or len(data) <= _JOINED:
            self._transport.write(head + data)
        else:
            self._transport.writelines((head, data))

    async def write_file(self, file: int, offset: int, count: int) -> int:
        """As `Wire` says."""
        sent = self._sendfile(file, offset, count)
        if not sent:
            data = os.pread(file, min(count, _PARKED), offset)
            if not data:
                raise EOFError
            await self.write(b"", data)
            sent = len(data)
        return sent

    def _sendfile(self, file: int, offset: int, count: int) -> int:
        """What the kernel takes at once; nothing while something waits that has to go before it."""
        # The number of a closed socket may be another client's.
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return 0
        try:
            return os.sendfile(self._fd, file, offset, count)
        except OSError:
            # A full socket, one that was reset, a file that cannot be sent so: writing to it finds out.
            return 0

    async def _drained(self) -> None:
        self._wait(patience.SEND_S)
        self._room = self._loop.create_future()
        try:
            await self._room
        finally:
            self._room = None
            self.deadline = inf
        if self._lost:
            raise self._gone()


def _size(target: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(target) + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
