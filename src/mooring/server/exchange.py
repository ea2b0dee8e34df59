"""One request and its answer, as ASGI has them: what an application sends becomes HTTP/1.1 (RFC 9112)."""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIRST = 64 * 1024
"""Bytes of a file that go out together with the head: small ones are one packet, and wake their client once."""
_PART = 2**20
"""Bytes of a file before it is somebody else's turn."""
_BODYLESS = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Wire(Protocol):
    """What an answer goes out by."""

    def date(self) -> bytes:
        """The Date line."""

    def ends(self) -> bool:
        """Whether the connection is closed after this answer."""

    async def write(self, head: bytes, data: bytes) -> None:
        """Send both. Returns when no more than a little waits for the client.

        Raises:
            ConnectionResetError: the client is gone.
            CutOff: the server is stopping, and waits no longer.
        """

    async def write_file(self, file: int, offset: int, count: int) -> int:
        """Have the kernel send up to `count` bytes of an open file; how many they were. Raises as `write`.

        Raises:
            EOFError: it has none there.
        """


async def receive() -> Message:
    """A request's body, which is never passed on: nothing that is served here reads one."""
    return {"type": "http.request", "body": b"", "more_body": False}


class Exchange:
    """Belongs to one request; `send` is ASGI's, with the extension `http.response.zerocopysend` where it is offered."""

    __slots__ = ("_bodyless", "_chunked", "_head", "_left", "_wire", "begun", "done", "scope")

    def __init__(self, scope: Scope, wire: Wire) -> None:
        self.scope = scope
        self.begun = False
        """Whether the client may have seen something of it."""
        self.done = False
        """Whether all of it was sent."""
        self._wire = wire
        self._head = b""
        self._left: int | None = None
        self._bodyless = self._chunked = False

    async def send(self, message: Message) -> None:
        """The next part of the answer. The head waits for the first part of the body.

        Raises:
            ConnectionResetError, CutOff: as `Wire.write`.
            EOFError: a file is shorter than was said.
            RuntimeError: the answer is not what its head says, or goes on after its end.
        """
        if self.done:
            raise RuntimeError("an answer has ended before")
        kind = message["type"]
        if kind == "http.response.start":
            self._begin(message["status"], message["headers"])
        elif kind == "http.response.body":
            await self._body(message.get("body", b""), more=message.get("more_body", False))
        else:
            await self._file(message["file"], message["offset"], message["count"])

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self.begun:
            # A refusal of what stopped in the middle: its head would be a part of the first one's body.
            raise RuntimeError("an answer has begun before")
        lines, self._left = _lines(tuple(headers))
        self._bodyless = self.scope["method"] == "HEAD" or status in _BODYLESS
        self._chunked = self._left is None and not self._bodyless and self.scope["http_version"] == "1.1"
        chunked = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        end = b"connection: close\r\n\r\n" if self._wire.ends() else b"\r\n"
        self._head = b"".join((_STATUS_LINES[status], self._wire.date(), lines, chunked, end))

    async def _body(self, data: bytes, *, more: bool) -> None:
        if self._bodyless:
            data = b""
        elif self._chunked:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self._count(len(data), more=more)
        head, self._head, self.begun = self._head, b"", True
        self.done = not more
        await self._wire.write(head, data)

    async def _file(self, file: int, offset: int, count: int) -> None:
        first = os.pread(file, min(count, _FIRST), offset)
        if not first:
            raise EOFError
        end = offset + count
        offset += len(first)
        self._count(count, more=False)
        head, self._head, self.begun = self._head, b"", True
        await self._wire.write(head, b"" if self._bodyless else first)
        while offset < end and not self._bodyless:
            offset += await self._wire.write_file(file, offset, min(_PART, end - offset))
            if offset < end:
                # The kernel may take all of it without a wait, and nobody else would be answered meanwhile.
                await asyncio.sleep(0)
        self.done = True

    def _count(self, length: int, *, more: bool) -> None:
        """A receiver takes what is missing from the next answer, and what is too much for it."""
        if self._left is None:
            return
        self._left -= length
        if self._left < 0 or (self._left and not more):
            raise RuntimeError("an answer is longer or shorter than its head says")


def kept_head(date: bytes, headers: Headers) -> bytes:
    """The head of an answer with the status 200, behind which the connection is kept. Raises as `Exchange.send`."""
    lines, _ = _lines(headers)
    return b"".join((_STATUS_LINES[HTTPStatus.OK], date, lines, b"\r\n"))


@lru_cache(maxsize=1024)
def _lines(headers: Headers) -> tuple[bytes, int | None]:
    """Headers as they are sent, and the length that they say. Many answers have the same ones."""
    # A browser must not take a module's text for a page.
    lines = [b"x-content-type-options: nosniff\r\n", *(b"%b: %b\r\n" % header for header in headers)]
    text = b"".join(lines)
    # A value with a line of its own would be a header that nobody wrote; some take half of a line break for one.
    if not text.count(b"\n") == text.count(b"\r") == len(lines):
        raise RuntimeError("a header's value has a line break")
    return text, next((int(value) for name, value in headers if name == b"content-length"), None)
