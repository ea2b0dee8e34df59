"""How a WebSocket through the gateway ends: what was said before arrives, and a right that went earlier is gone."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.model.grants import Grants
from mooring.model.routes import Access, Backend, Route
from support.grants import GRANTS, KEY, cookie
from support.nginx import Gateway, Request, backend, gateway

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
GOODBYE = b"\x88\x02\x03\xf1"
"""A close frame with the code 1009."""


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway without routes."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


def route(address: str) -> Route:
    """A route that whoever is signed in may enter."""
    return Route(name="one", host="a.test", backends=(Backend(address=address),), access=Access())


def opening(edge: Gateway) -> bytes:
    """What a signed-in browser sends to open a WebSocket."""
    host = edge.authority("a.test")
    lines = (f"GET / HTTP/1.1\r\nHost: {host}", "Connection: Upgrade\r\nUpgrade: websocket", f"Origin: http://{host}")
    return "\r\n".join((*lines, f"Cookie: {cookie()}", "", "")).encode()


async def test_what_was_said_before_the_end_reaches_a_slow_reader(edge: Gateway) -> None:
    """Megabytes that still are on their way when the backend closes arrive whole, and then an end, not a reset."""
    said = b"z" * (3 * 2**20) + GOODBYE

    async def answer(request: Request) -> None:
        request.writer.write(SWITCHED + said)
        await request.writer.drain()
        request.writer.close()
        await request.writer.wait_closed()

    async with backend(answer) as running:
        await edge.publish(route(running.address), grants=GRANTS)
        loop, heard = asyncio.get_running_loop(), b""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.connect(("127.0.0.1", edge.port))
            client.settimeout(0)
            await loop.sock_sendall(client, opening(edge))
            await asyncio.sleep(0.5)
            async with asyncio.timeout(20):
                while piece := await loop.sock_recv(client, 65536):
                    heard += piece
        assert heard == SWITCHED + said


async def test_a_client_that_still_sends_learns_why_the_backend_left(edge: Gateway) -> None:
    """A backend that has enough says so and closes: its reason arrives though what comes for it finds nobody."""

    async def answer(request: Request) -> None:
        request.writer.write(SWITCHED)
        await request.reader.read(100)
        request.writer.write(GOODBYE)
        await request.writer.drain()
        request.writer.close()

    async def flood(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    async def heard() -> bytes:
        reader, writer = await edge.connect()
        try:
            writer.write(opening(edge))
            await reader.readuntil(b"\r\n\r\n")
            async with Tasks("flood") as tasks:
                tasks.spawn("send", flood(writer))
                return await reader.readexactly(len(GOODBYE))
        finally:
            writer.transport.abort()

    async with backend(answer) as running, asyncio.timeout(30):
        await edge.publish(route(running.address), grants=GRANTS)
        for _ in range(5):
            async with asyncio.TaskGroup() as group:
                opened = [group.create_task(heard()) for _ in range(8)]
            assert {task.result() for task in opened} == {GOODBYE}


async def test_a_right_that_goes_while_the_backend_is_asked_ends_the_socket(edge: Gateway) -> None:
    """Access was looked at before the handshake: what was revoked until its end must not wait for another change."""
    answers = asyncio.Event()

    async def answer(request: Request) -> None:
        await answers.wait()
        request.writer.write(SWITCHED)
        await request.reader.read()

    async with backend(answer) as running:
        await edge.publish(route(running.address), grants=GRANTS)
        reader, writer = await edge.connect()
        writer.write(opening(edge))
        async with asyncio.timeout(10):
            while not running.seen:
                await asyncio.sleep(0.01)
            await edge.publish(grants=Grants((KEY,), GRANTS.tokens, (("s1", int(time.time()) + 60),)))
            # Every tunnel of now has been looked at.
            await asyncio.sleep(0.6)
            answers.set()
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
        writer.transport.abort()
