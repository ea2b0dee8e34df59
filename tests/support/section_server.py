"""The server's side of the gateway's two conversations, at the level of bytes, so that it can also misbehave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mooring.routes.wire import Line, encode
from mooring.settings import ServerLink

TOKEN = "the-gateway's-credential"


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class SectionServer:
    """Answers the stream with `snapshot` and then what `send` is given; keeps every report in `reports`.

    With `wants_table` each report is answered as by a server that does not know the gateway's own sections.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "api.sock"
        self.token_file = folder / "gateway-token"
        self.token_file.write_text(TOKEN + "\n")
        self.snapshot: Sequence[Line] = ()
        self.status = 200
        self.wants_table = False
        self.reports: list[Request] = []
        self.requests: list[Request] = []
        self._streams: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def link(self, **more: object) -> ServerLink:
        """The settings of a gateway of this server, with waits that suit a test."""
        quick = {"connect_s": 5.0, "silence_s": 60.0, "report_every_s": 0.05}
        return ServerLink(**({"token_file": self.token_file, "socket": self.socket} | quick | more))

    @property
    def streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    async def start(self, *, port: bool = False) -> str:
        """Listen on the socket, or on a port of loopback; the URL."""
        if port:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._server = await asyncio.start_unix_server(self._serve, self.socket)
        return "http://mooring"

    async def stop(self) -> None:
        """Go away at once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        while self._open:
            await asyncio.sleep(0.01)
        self.socket.unlink(missing_ok=True)

    def drop(self) -> None:
        """Break every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def send(self, *lines: Line) -> None:
        """Send lines on every stream."""
        await self.send_raw(b"".join(map(encode, lines)))

    async def send_raw(self, raw: bytes) -> None:
        """Send any bytes on every stream."""
        for writer in self._streams:
            writer.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            await writer.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    await self._answer(await _request(reader), reader, writer)
        finally:
            self._open.discard(writer)
            self._streams.discard(writer)
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        status = self.status if request.headers.get("authorization") == f"Bearer {TOKEN}" else 401
        streaming = request.path == "/api/v1/gateway/sections" and status == 200
        if request.method == "POST" and status == 200:
            self.reports.append(request)
            status = 202 if self.wants_table else status
        length = b"transfer-encoding: chunked" if streaming else b"content-length: 0"
        writer.write(b"HTTP/1.1 %d x\r\n%s\r\n\r\n" % (status, length))
        if streaming:
            raw = b"".join(map(encode, self.snapshot))
            writer.write(b"%x\r\n%s\r\n" % (len(raw), raw) if raw else b"")
            self._streams.add(writer)
            await reader.read()
            raise ConnectionResetError
        await writer.drain()


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def section_server(folder: Path) -> AsyncIterator[SectionServer]:
    """A running one on its socket."""
    server = SectionServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
