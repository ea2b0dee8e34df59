"""The connection to nginx's administration: one frame asks, one frame answers."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import orjson

from mooring.errors import Unavailable

ANSWER_S = 10.0
"""For one frame; the last one of a table of 100,000 routes takes about a second."""
_LENGTH = struct.Struct(">I")
_OPENING = b"GET /frames HTTP/1.1\r\nHost: admin\r\n\r\n"


class Admin:
    """A client of the unix socket at `path`: connects when it is first asked, and again after a failure."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, *frames: dict[str, Any]) -> dict[str, Any]:
        """Send `frames` one after the other on one connection; the answer to the last.

        Raises:
            Unavailable: nginx is away or slow; whether the frame had its effect is not known.
        """
        async with self._turn:
            try:
                return await self._exchange_again(frames)
            except (OSError, EOFError, TimeoutError) as error:
                await self._drop()
                raise Unavailable(f"nginx does not answer at {self._path}: {error}") from error
            except BaseException:
                # The answer to an abandoned question must not be taken for that to the next.
                await self._drop()
                raise

    async def close(self) -> None:
        """Close the connection."""
        async with self._turn:
            await self._drop()

    async def _exchange_again(self, frames: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        if self._writer is not None:
            try:
                return await self._exchange(frames)
            except (ConnectionError, EOFError):
                # The worker at the other end has died since; every question may be asked twice.
                await self._drop()
        return await self._exchange(frames)

    async def _exchange(self, frames: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for frame in frames:
            body = orjson.dumps(frame)
            # A large table is hundreds of frames: as long as each is answered, all of it will be.
            async with asyncio.timeout(ANSWER_S):
                answer = orjson.loads(await self._answer(_LENGTH.pack(len(body)) + body))
        return answer

    async def _answer(self, frame: bytes) -> bytes:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_unix_connection(self._path)
            self._writer.write(_OPENING)
        self._writer.write(frame)
        await self._writer.drain()
        (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
        return await self._reader.readexactly(length)

    async def _drop(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            # Aborted, not closed: a peer that is gone would keep the close waiting.
            writer.transport.abort()
