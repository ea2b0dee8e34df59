"""Answers without an end: each ends by itself when the client goes, its credential is revoked, or the server stops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mooring.control.tasks import Tasks

T = TypeVar("T")
Put = Callable[[bytes], Awaitable[None]]

PING_S = 15.0
"""Shorter than any proxy's patience with a quiet connection."""


class Stream(Response):
    """Sends `items` as they come. `ends` are waited for beside them: the first that is done ends the stream.

    `ping` is sent in quiet times; empty means never.
    """

    def __init__(
        self,
        items: AsyncIterator[bytes],
        *,
        ends: Sequence[Awaitable[object]],
        media_type: str,
        ping: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.body = b""
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | dict(headers or {}))
        del self.headers["content-length"]
        self._items = items
        self._ends = ends
        self._ping = ping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = asyncio.Lock()

        async def put(chunk: bytes) -> None:
            async with sending:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async with Tasks(f"stream {scope['path']}", stop_within_s=2.0) as tasks:
            done = [tasks.spawn("end", _wait(end)) for end in self._ends]
            done.append(tasks.spawn("gone", _gone(receive)))
            if self._ping:
                done.append(tasks.spawn("ping", _ping(put, self._ping)))
            done.append(tasks.spawn("items", self._copy(put)))
            await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _copy(self, put: Put) -> None:
        async with closing(self._items) as items:
            async for chunk in items:
                await put(chunk)


@contextlib.asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """`items`, closed at the end: a generator that is left to the garbage collector keeps its file or query open."""
    try:
        yield items
    finally:
        if (close := getattr(items, "aclose", None)) is not None:
            await close()


async def _wait(end: Awaitable[object]) -> None:
    await end


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ping(put: Put, ping: bytes) -> None:
    while True:
        await asyncio.sleep(PING_S)
        await put(ping)
