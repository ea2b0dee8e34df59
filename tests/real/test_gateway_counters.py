"""What the gateway counts adds up: for routes that come back, for probes, and for sockets that stay open."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from mooring.model.grants import Grants
from mooring.model.routes import Access, Backend, Route
from support.grants import KEY, PROBE, PROBE_GRANT
from support.nginx import Gateway, backend, gateway, ok

PUBLIC = Access(kind="public")


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway of one worker without routes."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


async def counter(edge: Gateway, name: str, route: str = "one") -> int:
    """The value of a counter of a route, over all its labels."""
    text = (await edge.sink.read()).metrics
    return sum(map(int, re.findall(rf'^{name}\{{route="test/{route}".*\}} (\d+)$', text, re.MULTILINE)))


async def until(edge: Gateway, name: str, wanted: int, route: str = "one") -> None:
    """Wait until the counter has that value."""
    async with asyncio.timeout(10):
        while await counter(edge, name, route) != wanted:
            await asyncio.sleep(0.1)


async def test_a_route_that_comes_back_is_counted_again(edge: Gateway) -> None:
    """Requests that were open when it went must not bring its counters back; those after its return must."""
    async with backend(ok()) as running:
        one = Route(name="one", host="a.test", backends=(Backend(address=running.address),), access=PUBLIC)
        await edge.publish(one)
        assert (await edge.get("a.test")).status == 200
        await until(edge, "mooring_route_requests_total", 1)
        await edge.remove("one")
        assert await counter(edge, "mooring_route_requests_total") == 0
        await edge.publish(one)
        for _ in range(3):
            assert (await edge.get("a.test")).status == 200
        await until(edge, "mooring_route_requests_total", 3)


async def test_a_probe_that_fails_is_neither_counted_nor_logged(edge: Gateway, tmp_path: Path) -> None:
    """Mooring asks an editor that starts again and again: its route would show errors that no person had."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = Backend(address=f"127.0.0.1:{free.getsockname()[1]}")
    starting = Route(name="one", host="a.test", backends=(dead,), state="starting", workspace="abcdefghij")
    later = Route(name="later", host="b.test", backends=(dead,), access=PUBLIC)
    await edge.publish(starting, later, grants=Grants((KEY,), (PROBE_GRANT,)))
    assert (await edge.get("a.test", Authorization=f"Bearer {PROBE}")).status == 502
    assert (await edge.get("a.test")).status == 401
    # What came before a request that shows in the counters shows as well.
    assert (await edge.get("b.test")).status == 502
    await until(edge, "mooring_route_requests_total", 1, "later")
    assert await counter(edge, "mooring_route_requests_total") == 1
    (log,) = tmp_path.rglob("error.log")
    assert 'host: "b.test' in (told := log.read_text())
    assert "a.test" not in told


async def test_an_open_socket_is_counted_while_it_is_open(edge: Gateway) -> None:
    """Its bytes show within seconds, once, and not only at its end, which may be days away."""

    async def answer(opened: ServerConnection) -> None:
        async for _ in opened:
            await opened.send(b"y" * 5000)

    async with serve(answer, "127.0.0.1", 0) as server:
        (listener,) = server.sockets
        target = Backend(address=f"127.0.0.1:{listener.getsockname()[1]}")
        await edge.publish(Route(name="one", host="a.test", backends=(target,), access=PUBLIC))
        url = f"ws://{edge.authority('a.test')}/"
        # A frame's head is 4 bytes for these lengths, and 4 more with a mask.
        sent, received = 4 + 5000, 8 + 3000
        async with connect(url, host="127.0.0.1", port=edge.port, proxy=None, compression=None) as opened:
            for number in range(1, 3):
                await opened.send(b"x" * 3000)
                await opened.recv()
                await until(edge, "mooring_route_received_bytes_total", number * received)
                await until(edge, "mooring_route_sent_bytes_total", number * sent)
