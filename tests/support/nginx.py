"""A real nginx with its sink, clients that say exactly what they say, and backends that tell what they were asked."""

import asyncio
import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.gateway.config import Listener, NginxSettings
from mooring.gateway.nginx import NginxSink
from mooring.gateway.supervise import Nginx
from mooring.model.grants import Grants
from mooring.model.routes import Route
from mooring.routes.ports import Delta, Revision, RouteKey
from mooring.settings import Home
from support.elsewhere import elsewhere

CONSOLE = "console.test"
ANSWER_S = 10.0


@dataclass
class Reply:
    """An answer; `headers` has lower-case names, `values` keeps repeated ones."""

    status: int
    headers: dict[str, str]
    body: bytes
    values: list[tuple[str, str]] = field(default_factory=list)

    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.body)
        return found


@dataclass
class Gateway:
    """A running nginx, its table and its public port."""

    nginx: Nginx
    sink: NginxSink
    port: int
    home: Home
    listener: socket.socket
    number: int = 0
    tls: bool = False

    async def publish(self, *routes: Route, grants: Grants | None = None, complete: bool = False) -> None:
        """Add or replace routes of the section `test`; the first time, or `complete`, they are the whole table."""
        self.number += 1
        first = complete or self.number == 1
        entries = tuple((RouteKey("test", route.name), route) for route in routes)
        if first or grants is not None:
            await self.sink.grant(grants or Grants())
        await self.sink.apply(Revision("e", self.number), Delta(entries, complete=first))

    async def remove(self, *names: str) -> None:
        """Remove routes."""
        self.number += 1
        await self.sink.apply(Revision("e", self.number), Delta(deletes=tuple(RouteKey("test", n) for n in names)))

    async def killed(self) -> None:
        """Kill the master as the kernel would, and wait for the next one to answer."""
        before = self.nginx.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        async with asyncio.timeout(ANSWER_S):
            while self.nginx.pid == before or not await self._answers():
                await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            await self.sink.applied()
        except Unavailable:
            return False
        return True

    async def get(self, host: str, path: str = "/", **headers: str) -> Reply:
        """GET with that Host (the port is added) and headers, `_` in their names standing for `-`."""
        return await self.ask("GET", host, path, headers)

    async def ask(
        self, method: str, host: str, path: str = "/", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        """One request on a connection of its own."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.authority(host)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def raw(self, request: bytes) -> Reply:
        """Send these very bytes and read one answer until the connection ends."""
        answer = await self.bytes(request)
        return parse(answer)

    async def bytes(self, request: bytes) -> bytes:
        """Send these very bytes and read until the connection ends."""
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await self.connect()
            try:
                writer.write(request)
                await writer.drain()
                return await reader.read()
            except ConnectionResetError:
                return b""
            finally:
                writer.transport.abort()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the public port."""
        context = _trusting() if self.tls else None
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    def authority(self, host: str) -> str:
        return f"{host}:{self.port}"


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def parse(answer: bytes) -> Reply:
    """The answer in these bytes; a chunked body is put together."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin1").split("\r\n")
    values = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
    headers = dict(values)
    if headers.get("transfer-encoding") == "chunked":
        body = _joined(body)
    return Reply(int(first.split()[1]) if first else 0, headers, body, values)


def _joined(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


def listening() -> socket.socket:
    """A listening socket on a free loopback port."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", 0))
    found.listen(1024)
    return found


def settings(folder: Path, port: int, *, tls: bool = False, console: str = CONSOLE, **more: object) -> NginxSettings:
    """Settings of an nginx below `folder`."""
    listener = Listener("main", "127.0.0.1", port, tls=tls)
    return NginxSettings(Home(folder), console, (listener,), **more)  # type: ignore[arg-type]


@asynccontextmanager
async def gateway(folder: Path, *, tls: bool = False, **more: object) -> AsyncIterator[Gateway]:
    """Nginx on a free port, supervised as the agent does it; `more` are fields of NginxSettings."""
    with listening() as listener:
        port = listener.getsockname()[1]
        nginx = Nginx(settings(folder, port, tls=tls, **more), [listener])
        sink = NginxSink(nginx.settings.home.gateway_socket)
        async with Tasks("test") as tasks:
            try:
                await nginx.start()
                tasks.spawn("nginx", nginx.run())
                await _all_workers(nginx, sink)
                yield Gateway(nginx, sink, port, nginx.settings.home, listener, tls=tls)
            finally:
                await sink.close()
                await nginx.stop()


def lasting(folder: Path, **more: object) -> AbstractContextManager[Gateway]:
    """The same for several tests, of which each takes it `anew`: what it counted and keeps is everybody's."""
    return elsewhere(gateway(folder, **more))  # type: ignore[arg-type]


@asynccontextmanager
async def anew(lasting: Gateway) -> AsyncIterator[Gateway]:
    """A gateway that others had, to be given a table."""
    sink = NginxSink(lasting.home.gateway_socket)
    try:
        yield replace(lasting, sink=sink, number=0)
    finally:
        await sink.close()


async def _all_workers(nginx: Nginx, sink: NginxSink) -> None:
    """Wait until every worker has reported: the first answers while the others still start."""
    async with asyncio.timeout(ANSWER_S):
        while len((await sink.read()).workers) < nginx.settings.workers:
            await asyncio.sleep(0.02)


@dataclass
class Request:
    """What a backend was asked."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


Answer = Callable[[Request], Awaitable[bytes | None]]


@dataclass
class Backend:
    """A backend: where it listens, and every request that it has seen."""

    address: str
    seen: list[Request] = field(default_factory=list)
    connections: int = 0


def ok(body: bytes = b"hello", *headers: str) -> bytes:
    """A 200 answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def backend(
    answer: Answer | bytes = b"",
    *,
    unix: Path | None = None,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Backend]:
    """An HTTP/1.1 server that answers each request with `answer`; without one it echoes the request as JSON."""
    found = Backend("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            while request := await _read(reader, writer):
                found.seen.append(request)
                reply = answer if isinstance(answer, bytes) else await answer(request)
                if reply is None:
                    return
                writer.write(reply or echo(request))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()

    if unix is None:
        server = await asyncio.start_server(serve, host, 0, ssl=tls, limit=2**20)
        found.address = f"{f'[{host}]' if ':' in host else host}:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(serve, unix, limit=2**20)
        found.address = str(unix)
    try:
        yield found
    finally:
        server.close()
        await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__qualname__", "").startswith("backend.<locals>.serve"):
                task.cancel()
        await asyncio.sleep(0.01)


def echo(request: Request) -> bytes:
    """The request as JSON."""
    told = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": request.body.decode("latin1"),
    }
    return ok(json.dumps(told).encode(), "Content-Type: application/json")


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
    known = dict(headers)
    body = b""
    if known.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif "content-length" in known:
        body = await reader.readexactly(int(known["content-length"]))
    return Request(method, target, headers, body, reader, writer)
