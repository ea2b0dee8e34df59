"""Requests that two programs could read in two ways: refused, or exactly one request with the routed Host."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.gateway.names import Names
from mooring.model.routes import Access, Backend, Route
from mooring.routes.ports import Delta, Revision, RouteKey
from support.nginx import Backend as Running
from support.nginx import Gateway, Request, anew, backend, gateway, lasting, ok

PUBLIC = Access(kind="public")


@pytest.fixture
async def running():  # noqa: ANN201 - an async fixture
    """A backend that remembers what it was asked."""
    async with backend() as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One nginx."""
    with lasting(tmp_path_factory.mktemp("g"), header_timeout_s=1) as started:
        yield started


@pytest.fixture
async def edge(shared: Gateway, running: Running):  # noqa: ANN201 - an async fixture
    """A gateway with one route."""
    async with anew(shared) as started:
        await started.publish(to(running))
        yield started


def to(running: Running) -> Route:
    """A route to that backend for everybody."""
    return Route(name="one", host="a.test", backends=(Backend(address=running.address),), access=PUBLIC)


REFUSED_TARGETS = [
    "/%2e%2e/x",
    "/a/%2E/b",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a\\b",
    "/../x",
    "/a/../b",
    "/a/./b",
    "/a/..",
    "/.",
    "/..;/x",
    "/a/..;x=1/b",
    "/a%00b",
    "/a%0d%0aX: y",
    "/a%7fb",
    "/a%zz",
    "/a%",
    "/a%2",
    "/a\x01b",
    "/a\x7fb",
    "a",
    "*",
    "//../x",
]


@pytest.mark.parametrize("target", REFUSED_TARGETS)
async def test_an_ambiguous_path_is_refused(edge: Gateway, running: Running, target: str) -> None:
    """A path that can be decoded into another one never reaches a backend."""
    reply = await edge.get("a.test", target)
    assert reply.status == 400
    assert running.seen == []


@pytest.mark.parametrize(
    "target", ["/a?", "/a?x=%2e%2e/%2f..\\", "/a;b=c", "/a/.hidden/...", "/%41%20b", "//a//", "/~u/*'()!"]
)
async def test_other_targets_arrive_as_they_were_sent(edge: Gateway, running: Running, target: str) -> None:
    """What is unambiguous is not touched, a query not looked at."""
    assert (await edge.get("a.test", target)).status == 200
    assert running.seen[0].target == target


# {h} is the routed authority; the others stand for what would make the lines too long.
WORDS = {
    b"{second}": b"GET /2 HTTP/1.1\r\nHost: {h}\r\n\r\n",
    b"{chunked}": b"Transfer-Encoding: chunked\r\n",
    b"{h2c}": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
}
SMUGGLED = {
    "two lengths": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde{second}",
    "length and chunked": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nContent-Length: 4\r\n{chunked}\r\n0\r\n\r\n{second}",
    "length with a plus": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nContent-Length: +4\r\n\r\nabcd",
    "negative length": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nContent-Length: -1\r\n\r\n",
    "chunked twice": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "other coding": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "tabbed coding": b"POST /1 HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding:\tidentity\r\nContent-Length: 3\r\n\r\nabc",
    "chunked of 1.0": b"POST /1 HTTP/1.0\r\nHost: {h}\r\n{chunked}\r\n0\r\n\r\n",
    "bad chunk size": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\nxyz\r\nabc\r\n0\r\n\r\n",
    "huge chunk size": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk extension that a line feed ends": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\n2;\nxx\r\n0\r\n\r\n",
    "chunk extension with a length": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\n3;\n40\r\nabc\r\n0\r\n\r\n",
    "chunk longer than its size": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\n1\r\nabc\r\n0\r\n\r\n",
    "trailer with a length": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\n0\r\nContent-Length: 9\r\n\r\n",
    "trailer with a host": b"POST /1 HTTP/1.1\r\nHost: {h}\r\n{chunked}\r\n0\r\nHost: other.test\r\n\r\n",
    "two hosts": b"GET /1 HTTP/1.1\r\nHost: {h}\r\nHost: other.test\r\n\r\n",
    "no host": b"GET /1 HTTP/1.1\r\n\r\n",
    "empty host": b"GET /1 HTTP/1.1\r\nHost:\r\n\r\n",
    "host with path": b"GET /1 HTTP/1.1\r\nHost: {h}/x\r\n\r\n",
    "host with user": b"GET /1 HTTP/1.1\r\nHost: other.test@{h}\r\n\r\n",
    "host with space": b"GET /1 HTTP/1.1\r\nHost: {h} other.test\r\n\r\n",
    "host with odd port": b"GET /1 HTTP/1.1\r\nHost: a.test:80x\r\n\r\n",
    "absolute form, other host": b"GET http://a.test/1 HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "absolute form, other host as long": b"GET http://a.test/1 HTTP/1.1\r\nHost: z.test\r\n\r\n",
    "absolute form, other scheme": b"GET ftp://other.test/1 HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "absolute form": b"GET http://{h}/1 HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "folded header": b"GET /1 HTTP/1.1\r\nHost: {h}\r\nX-A: b\r\n c: d\r\n\r\n",
    "space before colon": b"GET /1 HTTP/1.1\r\nHost : {h}\r\nHost: {h}\r\n\r\n",
    "bare line feeds": b"GET /1 HTTP/1.1\nHost: {h}\n\nGET /2 HTTP/1.1\nHost: other.test\n\n",
    "bare carriage return": b"GET /1 HTTP/1.1\r\nHost: {h}\r\nX-A: b\rHost: other.test\r\n\r\n",
    "null in header": b"GET /1 HTTP/1.1\r\nHost: {h}\r\nX-A: b\0c\r\n\r\n",
    "0.9": b"GET /1\r\n\r\n",
    "2.0": b"GET /1 HTTP/2.0\r\nHost: {h}\r\n\r\n",
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "connect": b"CONNECT other.test:80 HTTP/1.1\r\nHost: other.test:80\r\n\r\n",
    "upgrade to h2c": b"GET /1 HTTP/1.1\r\nHost: {h}\r\n{h2c}\r\n",
    "hop-by-hop credential": b"GET /1 HTTP/1.1\r\nHost: {h}\r\nConnection: close, X-Forwarded-For, Cookie\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_smuggling_is_refused_or_one_request_with_the_routed_host(
    edge: Gateway, running: Running, name: str
) -> None:
    """No backend ever sees a request that the gateway did not route, or a Host that was not routed."""
    request = SMUGGLED[name]
    for word, text in WORDS.items():
        request = request.replace(word, text)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await edge.bytes(request.replace(b"{h}", edge.authority("a.test").encode()))
    # Whatever became of these bytes, it serves on; and a request that hid in them would have come before this one.
    assert (await edge.get("a.test", "/after")).status == 200
    *seen, last = running.seen
    assert last.target == "/after"
    own = {edge.authority("a.test"), "a.test"}
    assert [request.target for request in seen] in ([], ["/1"])
    for request in seen:
        assert next(value for header, value in request.headers if header == "host") in own
        assert len([value for header, value in request.headers if header == "host"]) == 1
        assert not {"content-length", "transfer-encoding"} <= {header for header, _ in request.headers}


async def test_slow_headers_are_given_up(edge: Gateway) -> None:
    """A client that never ends its headers does not keep a connection."""
    reader, writer = await edge.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n")
    since = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            await reader.read()
    assert time.monotonic() - since < 8
    writer.transport.abort()


async def test_endless_headers_are_refused(edge: Gateway, running: Running) -> None:
    """A hundred megabytes of headers end after a few kilobytes of them."""
    reader, writer = await edge.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n")
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            for number in range(100):
                writer.write(b"X-%d: " % number + b"a" * 2**20 + b"\r\n")
                await writer.drain()
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    writer.transport.abort()
    assert running.seen == []
    assert (await edge.get("a.test")).status == 200


async def test_a_body_without_end_holds_up_nobody_else(edge: Gateway) -> None:
    """An unfinished upload waits alone."""
    _, writer = await edge.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    for _ in range(5):
        assert (await edge.get("a.test")).status == 200
    writer.transport.abort()


async def test_refusals_are_counted(tmp_path: Path, running: Running) -> None:
    """Each reason is a metric."""
    async with gateway(tmp_path) as edge:
        await edge.publish(to(running))
        await edge.get("a.test", "/%2e")
        await edge.get("nobody.test")
        deadline = time.monotonic() + 5
        wanted = ('refused_total{reason="bad_request"} 1', 'refused_total{reason="unknown"} 1')
        text = ""
        while not all(line in text for line in wanted):
            assert time.monotonic() < deadline
            text = (await edge.sink.read()).metrics


@pytest.mark.parametrize("place", ["@api", "@files", "@unverified", "/elsewhere", "/.mooring/ticket"])
async def test_a_backend_cannot_send_a_request_to_another_location(shared: Gateway, place: str) -> None:
    """The X-Accel headers mean nothing in an answer of a backend, and reach nobody."""
    async with (
        anew(shared) as edge,
        backend(ok(b"mine", f"X-Accel-Redirect: {place}", "X-Accel-Charset: x")) as it,
    ):
        await edge.publish(to(it))
        reply = await edge.get("a.test", "/here")
        assert (reply.status, reply.body) == (200, b"mine")
        assert not any(name.startswith("x-accel") for name in reply.headers)
        assert [request.target for request in it.seen] == ["/here"]


@pytest.mark.parametrize(
    ("method", "protocol"), [("GET", "h2c"), ("POST", "websocket"), ("GET", "websocket, h2c"), ("OPTIONS", "TLS/1.2")]
)
async def test_no_upgrade_but_a_websocket_becomes_a_tunnel(shared: Gateway, method: str, protocol: str) -> None:
    """A tunnel that nginx carried by itself could not be cut: a backend that agrees to any other upgrade gets none."""
    agreed = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\nTUNNEL".encode()
    async with anew(shared) as edge, backend(agreed) as it:
        await edge.publish(to(it))
        answer = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await edge.connect()
                head = f"{method} / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
                writer.write(head.encode())
                while piece := await reader.read(4096):
                    answer += piece
        writer.transport.abort()
        assert b"TUNNEL" not in answer
        assert {request.header("upgrade") for request in it.seen} == {None}


@pytest.mark.parametrize(
    "cookie",
    ["mooring=x", "=mooring=x", " = __Host-mooring=x", "MOORING=x; Domain=test", "mooring", "=mooring; Path=/"],
)
async def test_no_spelling_of_our_cookies_passes(shared: Gateway, cookie: str) -> None:
    """A browser sends a cookie without a name as its value alone, which would look like one of ours."""
    async with anew(shared) as edge, backend(ok(b"", f"Set-Cookie: {cookie}", "Set-Cookie: theirs=1")) as it:
        await edge.publish(to(it))
        reply = await edge.get("a.test")
        assert [value for name, value in reply.values if name == "set-cookie"] == ["theirs=1"]


async def test_an_empty_header_hides_none_behind_it(shared: Gateway) -> None:
    """Of several headers of a name nginx tells the first one, which may say nothing."""
    lines = ("Set-Cookie:", "Set-Cookie: mooring=x", "Service-Worker-Allowed:", "Service-Worker-Allowed: /")
    async with anew(shared) as edge, backend(ok(b"", *lines)) as it:
        await edge.publish(to(it))
        reply = await edge.get("a.test")
        assert "mooring" not in repr(reply.values)
        assert [value for name, value in reply.values if name == "service-worker-allowed"] == ["/"]


async def test_a_backend_may_be_a_name(shared: Gateway) -> None:
    """What a name leads to is served, and what it leads to next, without a change of the table."""
    where = ["127.0.0.2"]
    async with anew(shared) as edge, backend(ok(b"hello")) as it:
        names = Names(edge.sink, lookup=lambda _: tuple(where), allowed=lambda _: True, refresh_s=0.05)
        port = it.address.rpartition(":")[2]
        route = Route(name="n", host="n.test", backends=(Backend(address=f"app.internal:{port}"),), access=PUBLIC)
        async with Tasks("names") as tasks:
            tasks.spawn("names", names.run())
            await names.apply(Revision("e", 1), Delta(((RouteKey("test", "n"), route),), complete=True))
            assert (await edge.get("n.test")).status == 502
            where[:] = ["127.0.0.1"]
            async with asyncio.timeout(10):
                while (await edge.get("n.test")).status != 200:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 000 none\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 199 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0.5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nabc",
        b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: @api\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 999 x\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/0.9\r\n\r\n",
        b"nothing of HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
    ],
)
async def test_a_backend_that_answers_an_upgrade_with_nonsense_harms_nobody(shared: Gateway, answer: bytes) -> None:
    """No tunnel is opened, no worker is lost, and the next request is served."""

    async def reply(request: Request) -> bytes | None:
        if request.header("upgrade") is None:
            return ok(b"fine")
        request.writer.write(answer)
        await request.writer.drain()
        return None

    async with anew(shared) as edge, backend(reply) as it:
        await edge.publish(to(it))
        workers = (await edge.sink.read()).workers
        head = "GET /w HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        reader, writer = await edge.connect()
        writer.write(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n".encode())
        said = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1):
                said = await reader.read(64)
        writer.transport.abort()
        assert not said.startswith(b"HTTP/1.1 101")
        assert (await edge.get("a.test")).body == b"fine"
        assert (await edge.sink.read()).workers == workers
