"""The module proxy's own HTTP/1.1 server for ASGI applications. Why not the one that the API has: decision 14.

It serves what is read and never written: requests' bodies are not passed on. Signals are the role's own business.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from socket import socket

import structlog

from mooring.control.tasks import Tasks
from mooring.errors import Misconfigured
from mooring.server import patience
from mooring.server.connection import Connection
from mooring.server.exchange import App
from mooring.server.usual import ShortWay

log = structlog.get_logger(__name__)

BACKLOG = 1024
"""Many machines of a build farm begin at the same second."""
_GRACE_S = 10.0
_LOOK_S = 1.0


class _Door:
    """Knows its connections, looks after their deadlines, and ends them."""

    def __init__(self, app: App, tasks: Tasks, hits: ShortWay | None) -> None:
        self.app = app
        self.hits = hits
        self._tasks = tasks
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._closing = False
        self._second = 0
        self._date = b""

    def date(self) -> bytes:
        """The Date line."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._date

    def entered(self, connection: Connection) -> None:
        """One more."""
        self._connections.add(connection)
        _ = self._tasks.spawn("connection", connection.serve())
        if self._closing:
            connection.stop()

    def left(self, connection: Connection) -> None:
        """One less."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def watch(self) -> None:
        """End connections whose time is over, for ever: one look at all costs less than a timer for each request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = loop.time()
            for connection in [one for one in self._connections if one.deadline < now]:
                connection.abort()

    async def close(self) -> None:
        """Let answers under way end, for ten seconds."""
        self._closing = True
        for connection in list(self._connections):
            connection.stop()
        self._empty.clear()
        if self._connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await self._empty.wait()
                    return
            log.warning("answers are cut off", connections=len(self._connections), within_s=_GRACE_S)
        for connection in list(self._connections):
            connection.cut_off()


@asynccontextmanager
async def answering(
    app: App, listener: socket, tls: ssl.SSLContext | None = None, hits: ShortWay | None = None
) -> AsyncIterator[None]:
    """Serve `app` at a socket that listens until the end of the block; answers under way get ten seconds then.

    `hits` is asked first about plain requests, and the application about what that does not answer.
    """
    patience.open_many_files()
    loop = asyncio.get_running_loop()
    limit = patience.HEAD_S if tls else None
    async with Tasks("door") as tasks:
        door = _Door(app, tasks, hits)
        server = await loop.create_server(
            lambda: Connection(door, loop), sock=listener, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=limit
        )
        tasks.forever("patience", door.watch())
        try:
            yield
        finally:
            server.close()
            await door.close()


def encryption(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The settings for TLS; None without a certificate.

    Raises:
        Misconfigured: the certificate cannot be used.
    """
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password a key that has one would ask the terminal for it.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise Misconfigured(f"{certificate} and its key cannot be used: {error}", field="tls") from error
    return context
