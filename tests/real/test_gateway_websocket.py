"""WebSockets through the gateway: carried, counted, and cut when the route or the session ends."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mooring.model.grants import Grants
from mooring.model.routes import Access, Backend, Route
from support.grants import GRANTS, KEY, TOKEN, cookie
from support.nginx import Gateway, Request, backend, gateway, ok

WORKSPACE = "abcdefghij"


async def _echo(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            await socket.send(message)


@asynccontextmanager
async def echo_server(handler=_echo, **more: object) -> AsyncIterator[tuple[str, list[ServerConnection]]]:  # noqa: ANN001
    """A WebSocket server: its address and the connections that it has seen."""
    seen: list[ServerConnection] = []

    async def serve_one(socket: ServerConnection) -> None:
        seen.append(socket)
        await handler(socket)

    async with serve(serve_one, "127.0.0.1", 0, max_size=2**26, **more) as server:  # type: ignore[arg-type]
        (listener,) = server.sockets
        yield f"127.0.0.1:{listener.getsockname()[1]}", seen


def guarded(address: str, **more: object) -> Route:
    """A workspace's route that only ann may enter."""
    access = Access(kind="subjects", subjects=("ann",))
    values = {"name": "one", "host": "a.test", "backends": (Backend(address=address),), "access": access}
    return Route(**values | {"workspace": WORKSPACE} | more)


def dial(edge: Gateway, path: str = "/socket?x=1", host: str = "a.test", **headers: str) -> connect:
    """A WebSocket as a signed-in browser opens it."""
    sent = {"Origin": f"http://{edge.authority(host)}", "Cookie": cookie(host)} | headers
    return connect(
        f"ws://{edge.authority(host)}{path}",
        host="127.0.0.1",
        port=edge.port,
        additional_headers={k: v for k, v in sent.items() if v},
        proxy=None,
        max_size=2**26,
        open_timeout=10,
    )


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway without routes."""
    async with gateway(tmp_path) as started:
        yield started


async def closed_within(socket: ClientConnection, seconds: float) -> bool:
    """Whether the connection ended in that time."""
    try:
        async with asyncio.timeout(seconds):
            await socket.wait_closed()
    except TimeoutError:
        return False
    return True


async def test_messages_of_any_size_pass_both_ways(edge: Gateway) -> None:
    """Text, binary, empty and very large messages arrive whole, many in flight at once."""
    async with echo_server() as (address, seen):
        await edge.publish(guarded(address), grants=GRANTS)
        async with dial(edge) as socket:
            for message in ("text", b"", b"\x00" * 70_000, "é" * 300_000, b"x" * (8 * 2**20)):
                await socket.send(message)
                assert await socket.recv() == message
            for number in range(500):
                await socket.send(str(number))
            assert [await socket.recv() for _ in range(500)] == [str(n) for n in range(500)]
        (backend_side,) = seen
        assert backend_side.request is not None
        assert backend_side.request.path == "/socket?x=1"
        assert backend_side.request.headers["Host"] == edge.authority("a.test")
        assert "Cookie" not in backend_side.request.headers
        assert backend_side.request.headers["X-Forwarded-For"] == "127.0.0.1"
        await counted(edge, 'mooring_route_requests_total{route="test/one",code="1xx"} 1')


async def test_a_reader_that_does_not_read_stops_its_sender(edge: Gateway) -> None:
    """A slow side holds the other one back; the gateway keeps no more than its buffers."""
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionClosed):
            for _ in range(4000):
                await socket.send(b"x" * 16384)
                sent += 1

    async with echo_server(flood) as (address, _):
        await edge.publish(guarded(address), grants=GRANTS)
        async with dial(edge) as socket:
            socket.transport.pause_reading()
            before = -1
            async with asyncio.timeout(20):
                while before != sent:
                    before = sent
                    await asyncio.sleep(0.5)
            assert sent < 4000
            socket.transport.abort()


async def test_the_close_of_either_side_reaches_the_other(edge: Gateway) -> None:
    """A close frame and its reason pass in both directions."""

    async def leave(socket: ServerConnection) -> None:
        await socket.close(4000, "enough")

    async with echo_server(leave) as (address, _):
        await edge.publish(guarded(address), grants=GRANTS)
        async with dial(edge) as socket:
            assert await closed_within(socket, 5)
            assert (socket.close_code, socket.close_reason) == (4000, "enough")
    async with echo_server() as (address, seen):
        await edge.publish(guarded(address))
        async with dial(edge) as socket:
            await socket.close(4001, "bye")
        async with asyncio.timeout(5):
            await seen[0].wait_closed()
        assert (seen[0].close_code, seen[0].close_reason) == (4001, "bye")


@pytest.mark.parametrize("end", ["revoked", "removed", "stopped", "unshared", "token-gone"])
async def test_what_ends_a_right_ends_its_open_socket(edge: Gateway, end: str) -> None:
    """Revocation, removal, stop and the end of a share cut an open WebSocket within a second."""
    async with echo_server() as (address, _):
        await edge.publish(guarded(address), grants=GRANTS)
        by_token = {"Cookie": "", "Authorization": f"Bearer {TOKEN}"} if end == "token-gone" else {}
        async with dial(edge, **by_token) as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            await do_end(edge, end, address)
            assert await closed_within(socket, 2)


async def do_end(edge: Gateway, end: str, address: str) -> None:
    """What takes the right away."""
    if end == "revoked":
        await edge.publish(grants=Grants((KEY,), GRANTS.tokens, (("s1", int(time.time()) + 60),)))
    elif end == "removed":
        await edge.remove("one")
    elif end == "stopped":
        await edge.publish(guarded(address, state="stopped"))
    elif end == "unshared":
        await edge.publish(guarded(address, access=Access(kind="subjects", subjects=("bob",))))
    else:
        await edge.publish(grants=Grants((KEY,)))


async def test_other_changes_leave_open_sockets_alone(edge: Gateway) -> None:
    """A socket survives a thousand changes of other routes, a change of its own, and grants that are withheld."""
    async with echo_server() as (address, _):
        await edge.publish(guarded(address), grants=GRANTS)
        async with dial(edge) as socket:
            for number in range(1000):
                await edge.publish(guarded(address, name=f"other{number % 50}", host=f"h{number % 50}.test"))
            await edge.publish(guarded("127.0.0.1:1"), grants=Grants())
            assert not await closed_within(socket, 1)
            await socket.send("still")
            assert await socket.recv() == "still"


async def test_every_tunnel_of_a_large_change_is_looked_at(edge: Gateway) -> None:
    """The number that tunnels watch is raised when all of a change is in: raised before, some would stay open."""
    async with echo_server() as (address, _), contextlib.AsyncExitStack() as stack:
        target = (Backend(address=address),)
        hosts = [f"h{number}.test" for number in range(20)]
        mine = [Route(name=host, host=host, backends=target, access=Access(kind="public")) for host in hosts]
        others = [Route(name=f"o{n}", host=f"o{n}.test", backends=target) for n in range(2000)]
        for _ in range(3):
            await edge.publish(*mine)
            sockets = [await stack.enter_async_context(dial(edge, host=host)) for host in hosts]
            await edge.publish(*others, complete=True, grants=GRANTS)
            for socket in sockets:
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 5)


async def test_a_socket_needs_our_origin_and_a_session(edge: Gateway) -> None:
    """Another origin, no origin, nobody and somebody else are refused before the backend is asked."""
    async with echo_server() as (address, seen):
        await edge.publish(guarded(address), grants=GRANTS)
        bad = (
            ({"Origin": "http://evil.test"}, 403),
            ({"Origin": ""}, 403),
            ({"Cookie": ""}, 401),
            ({"Cookie": cookie(subject="bob")}, 403),
        )
        for headers, status in bad:
            with pytest.raises(InvalidStatus) as refused:
                async with dial(edge, **headers):
                    pass
            assert refused.value.response.status_code == status
        assert seen == []


async def test_an_answer_that_is_no_upgrade_is_passed_on(edge: Gateway) -> None:
    """A backend that answers an upgrade with 200 cannot make the gateway tunnel what comes behind."""

    async def answer(request: Request) -> bytes:
        return ok(b"not a socket", "X-Told: " + request.target)

    async with backend(answer) as running:
        await edge.publish(guarded(running.address), grants=GRANTS)
        upgrade = (
            f"GET /up HTTP/1.1\r\nHost: {edge.authority('a.test')}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Origin: http://{edge.authority('a.test')}\r\nCookie: {cookie()}\r\n\r\n"
        )
        reply = await edge.raw(
            upgrade.encode() + b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        )
        assert (reply.status, reply.headers["x-told"]) == (200, "/up")
        assert b"not a socket" in reply.body
        assert [request.target for request in running.seen] == ["/up"]


async def test_typing_is_activity_and_a_heartbeat_is_not(edge: Gateway) -> None:
    """On any socket of a workspace a message that repeats itself is background, a new one is input."""
    async with echo_server(ping_interval=None) as (address, _):
        await edge.publish(guarded(address), grants=GRANTS)
        async with dial(edge) as socket:
            for _ in range(3):
                await socket.send('{"ping": 17}')
                await socket.send("subscribe")
            await asyncio.sleep(5.5)
            for number in range(3):
                await socket.send(json.dumps({"ping": number}))
                await socket.ping()
            await asyncio.sleep(1.2)
            assert (await edge.sink.read()).activity == {}
            assert (await edge.sink.read()).connections == {WORKSPACE: 1}
            before = time.time()
            await socket.send("ls -l")
            assert await eventually_active(edge) >= before - 1


async def eventually_active(edge: Gateway) -> float:
    """When the workspace was last active, once it was."""
    async with asyncio.timeout(5):
        while not (seen := (await edge.sink.read()).activity):
            await asyncio.sleep(0.1)
    return seen[WORKSPACE]


async def counted(edge: Gateway, wanted: str) -> None:
    """Wait until the metrics hold `wanted`."""
    text = ""
    try:
        async with asyncio.timeout(5):
            while wanted not in text:
                text = (await edge.sink.read()).metrics
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(text)
