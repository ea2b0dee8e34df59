"""Backends whose answer to a WebSocket's opening has no end: it must not become a worker's memory."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from mooring.model.routes import Access, Route
from mooring.model.routes import Backend as Target
from support.nginx import Gateway, Request, backend, gateway, ok

PIECE = b"1" * 2**16
MUCH = 64 * 2**20
MOST_GROWTH_MB = 16
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway of one worker."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        pytest.param(HEAD + b"\r\n", PIECE, id="no length"),
        pytest.param(HEAD + b"Content-Length: 999999999\r\n\r\n", PIECE, id="length"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n%b\r\n" % PIECE, id="chunks"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", PIECE, id="length of a chunk"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx", PIECE, id="end of a chunk"),
        pytest.param(HEAD, PIECE, id="header"),
    ],
)
async def test_an_answer_without_end_is_not_kept(edge: Gateway, begin: bytes, piece: bytes) -> None:
    """A client that reads nothing of it holds the backend up, not the memory; the next request is served."""
    taken = 0

    async def endless(request: Request) -> bytes | None:
        nonlocal taken
        if request.header("upgrade") is None:
            return ok(b"fine")
        request.writer.write(begin)
        with suppress(ConnectionError):
            while taken < MUCH:
                request.writer.write(piece)
                await request.writer.drain()
                taken += len(piece)
        return None

    async with backend(endless) as running:
        public = Access(kind="public")
        await edge.publish(Route(name="one", host="a.test", backends=(Target(address=running.address),), access=public))
        (worker,) = (await edge.sink.read()).workers
        before = own_megabytes(worker)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)  # noqa: FBT003 - its only argument
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", edge.port))
            head = (
                f"GET /w HTTP/1.1\r\nHost: {edge.authority('a.test')}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            )
            more = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
            await loop.sock_sendall(client, (head + more).encode())
            most = 0.0
            for _ in range(20):
                await asyncio.sleep(0.1)
                most = max(most, own_megabytes(worker) - before)
        assert most < MOST_GROWTH_MB
        assert (await edge.get("a.test")).body == b"fine"


def own_megabytes(pid: int) -> float:
    """The heap and the anonymous memory of a process."""
    status = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(status[1]) - int(status[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20
