"""HTTP/2 requests that would become another request, or two, on the way down to HTTP/1.1."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from mooring.gateway.authority import LocalAuthority
from mooring.model.routes import Access, Backend, Route
from support.http2 import PREFACE, block, frame, opened
from support.nginx import Backend as Running
from support.nginx import Gateway, anew, backend, lasting

HOST = "a.test"
GOOD = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/1")]
SECOND = "GET /2 HTTP/1.1\r\nHost: other.test\r\n\r\n"
BARE = [pair for pair in GOOD if pair[0] != ":authority"]


def but(**changed: str) -> list[tuple[str, str]]:
    """The good request with other pseudo headers."""
    return [(name, changed.get(name[1:], value)) for name, value in GOOD]


HEADERS = {
    "authority and another host": [*GOOD, ("host", "other.test")],
    "host alone": [*BARE, ("host", HOST)],
    "two authorities": [*GOOD, (":authority", "other.test")],
    "two paths": [*GOOD, (":path", "/2")],
    "two methods": [*GOOD, (":method", "POST")],
    "no authority": BARE,
    "authority with a line break": but(authority=f"{HOST}\r\nX-Evil: 1"),
    "authority with a user": but(authority=f"other.test@{HOST}"),
    "path with a request": but(path=f"/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n{SECOND}"),
    "path with a space": but(path="/1 HTTP/1.1"),
    "path with a tab": but(path="/1\tx"),
    "absolute path": but(path="http://other.test/1"),
    "empty path": but(path=""),
    "star": but(path="*"),
    "method with a request": but(method=f"GET /1 HTTP/1.1\r\nHost: {HOST}\r\n\r\nPOST"),
    "method with a space": but(method="GET /2"),
    "scheme with a request": but(scheme=f"http://other.test/ HTTP/1.1\r\n\r\n{SECOND}"),
    "value with a line break": [*GOOD, ("x-a", f"b\r\n\r\n{SECOND}")],
    "value with a line feed": [*GOOD, ("x-a", "b\nx-evil: 1")],
    "value with a null": [*GOOD, ("x-a", "b\0c")],
    "name with a line break": [*GOOD, ("x-a: b\r\nx-evil", "1")],
    "name with a colon": [*GOOD, ("x-evil: 1\r\nx", "1")],
    "name in capitals": [*GOOD, ("X-Evil", "1")],
    "name with a space": [*GOOD, ("x evil", "1")],
    "chunked": [*GOOD, ("transfer-encoding", "chunked")],
    "connection": [*GOOD, ("connection", "x-forwarded-for, host")],
    "upgrade": [*GOOD, ("upgrade", "websocket"), ("connection", "upgrade")],
    "pseudo header at the end": [*GOOD[:3], ("x-a", "1"), GOOD[3]],
    "unknown pseudo header": [*GOOD, (":protocol", "websocket")],
    "connect": [(":method", "CONNECT"), (":authority", HOST)],
    "forwarded": [*GOOD, ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-host", "other.test")],
}


@pytest.fixture
async def running():  # noqa: ANN201 - an async fixture
    """A backend that remembers what it was asked."""
    async with backend() as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """One nginx, and its certificate."""
    folder = tmp_path_factory.mktemp("g")
    with lasting(folder / "g", tls=True) as started:
        yield started, LocalAuthority(folder / "tls", HOST).pem()


@pytest.fixture
async def edge(shared: tuple[Gateway, str], running: Running):  # noqa: ANN201 - an async fixture
    """A gateway that speaks HTTP/2, with one route."""
    async with anew(shared[0]) as started:
        await started.sink.certificate(shared[1])
        public = Access(kind="public")
        await started.publish(Route(name="one", host=HOST, backends=(Backend(address=running.address),), access=public))
        yield started


async def send(edge: Gateway, headers: list[tuple[str, str]], body: bytes | None = None) -> None:
    """One request in raw frames; returns once the gateway has answered it or closed."""
    reader, writer = await opened(edge.port)
    writer.write(PREFACE)
    writer.write(frame(1, 4 if body is not None else 5, 1, block(headers)))
    if body is not None:
        writer.write(frame(0, 1, 1, body))
    with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
        async with asyncio.timeout(3):
            ended = False
            while not ended:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3]))
                # The stream's end or reset, or the connection's.
                ended = head[3] in (3, 7) or (head[3] in (0, 1) and bool(head[4] & 1))
    writer.transport.abort()


def check(running: Running) -> None:
    """Nothing arrived, or the one request that was routed."""
    assert [request.target for request in running.seen] in ([], ["/1"])
    for request in running.seen:
        hosts = [value for name, value in request.headers if name == "host"]
        assert len(hosts) == 1
        assert hosts[0].partition(":")[0] == HOST
        names = [name for name, _ in request.headers]
        assert not {"x-evil", "upgrade"} & set(names)
        assert not {"content-length", "transfer-encoding"} <= set(names)
        assert not any("6.6.6.6" in value or "other.test" in value for _, value in request.headers)
        assert not any(set(value) & set("\r\n\0") for _, value in request.headers)


@pytest.mark.parametrize("name", HEADERS)
async def test_no_field_becomes_another_request(edge: Gateway, running: Running, name: str) -> None:
    """Line breaks, second hosts and hop-by-hop fields are refused, or stay what they were: data of one request."""
    await send(edge, HEADERS[name])
    check(running)
    await send(edge, but(path="/1"))
    assert running.seen[-1].target == "/1"


@pytest.mark.parametrize("length", ["0", "3", "1000", "-1", "+5", "5, 5", "0x5"])
async def test_a_length_that_is_not_the_bodys_makes_no_second_request(
    edge: Gateway, running: Running, length: str
) -> None:
    """What follows the announced length is part of no request."""
    await send(edge, [*but(method="POST"), ("content-length", length)], SECOND.encode())
    check(running)
