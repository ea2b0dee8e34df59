"""WebSockets of a route with several backends, and of one that is a folder."""

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from mooring.model.routes import Access, Backend, Balancing, Route
from support.nginx import Gateway, Request, backend, gateway


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway of one worker, so that its counts are all of them."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


def route(*addresses: str, **more: object) -> Route:
    """A public route."""
    backends = tuple(Backend(address=address) for address in addresses)
    return Route(**{"name": "one", "host": "a.test", "backends": backends, "access": Access(kind="public")} | more)


@contextlib.asynccontextmanager
async def counting() -> AsyncIterator[tuple[str, list[ServerConnection]]]:
    """A WebSocket server: its address and the connections that it has."""
    seen: list[ServerConnection] = []

    async def keep(opened: ServerConnection) -> None:
        seen.append(opened)
        await opened.wait_closed()
        seen.remove(opened)

    async with serve(keep, "127.0.0.1", 0) as server:
        (listener,) = server.sockets
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen


async def dial(stack: AsyncExitStack, edge: Gateway) -> ClientConnection:
    """An open WebSocket."""
    url = f"ws://{edge.authority('a.test')}/"
    return await stack.enter_async_context(connect(url, host="127.0.0.1", port=edge.port, proxy=None))


async def test_open_sockets_are_connections(edge: Gateway) -> None:
    """With least connections they are shared out, and one that is closed makes room where it was."""
    async with counting() as (a, at_a), counting() as (b, at_b), AsyncExitStack() as stack:
        await edge.publish(route(a, b, balancing=Balancing.least_connections))
        opened = [await dial(stack, edge) for _ in range(6)]
        assert (len(at_a), len(at_b)) == (3, 3)
        for one in opened[0::2]:
            await one.close()
        for _ in range(3):
            await dial(stack, edge)
        assert (len(at_a), len(at_b)) == (3, 3)


async def test_a_backend_that_is_away_is_passed_over(edge: Gateway) -> None:
    """One that refuses the connection, or hangs up without an answer, is no reason to fail."""

    async def hang_up(_request: Request) -> None:
        return None

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refusing = f"127.0.0.1:{free.getsockname()[1]}"
    async with counting() as (good, seen), backend(hang_up) as bad, AsyncExitStack() as stack:
        await edge.publish(route(refusing, bad.address, good))
        for _ in range(6):
            await dial(stack, edge)
        assert len(seen) == 6


async def test_a_folder_answers_an_upgrade_with_its_file(edge: Gateway, tmp_path: Path) -> None:
    """Nobody there can switch protocols: the request is one for a file."""
    (tmp_path / "index.html").write_text("a page")
    await edge.publish(route(backends=(Backend(files=str(tmp_path)),)))
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    reply = await edge.ask("GET", "a.test", "/", upgrade)
    assert (reply.status, reply.body) == (200, b"a page")
