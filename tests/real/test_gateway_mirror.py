"""Requests that are copied to a second backend: it learns what the first one does, and can neither slow nor fail it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mooring.model.routes import Access, Backend, BackendTls, Filters, HeaderFilter, Mirror, Route
from support.certificates import server_context
from support.grants import GRANTS, TOKEN, cookie
from support.nginx import Backend as Running
from support.nginx import Gateway, Request, backend, gateway, ok

PUBLIC = Access(kind="public")
MOST_OPEN = 64


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway of one worker, whose bounds are all there are."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


def route(first: Running, second: str, *, percent: int = 100, access: Access = PUBLIC, **filters: object) -> Route:
    """A route to `first` whose requests are copied to the address or socket `second`."""
    copied = Backend(unix=second) if second.startswith("/") else Backend(address=second)
    changes = Filters(mirror=Mirror(backend=copied, percent=percent), **filters)  # type: ignore[arg-type]
    return Route(name="one", host="a.test", backends=(Backend(address=first.address),), filters=changes, access=access)


async def until(condition: Callable[[], object]) -> None:
    """Copies are on their way when the answer has come."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def left_out(edge: Gateway) -> float:
    """How many copies were not made."""
    lines = (await edge.sink.read()).metrics.splitlines()
    found = [line for line in lines if line.startswith('mooring_gateway_refused_total{reason="mirror"}')]
    return float(found[0].split()[1]) if found else 0.0


async def test_a_mirror_over_tls_is_one_that_is_trusted(tmp_path: Path) -> None:
    """Its certificate has the expected name and a known authority: then it gets its copy."""
    context, authority = server_context(tmp_path, "mirror.test")
    async with (
        gateway(tmp_path / "g", trusted_ca=authority) as edge,
        backend(ok(b"first")) as first,
        backend(ok(b"second"), tls=context) as second,
    ):
        tls = BackendTls(server_name="mirror.test")
        copied = Mirror(backend=Backend(address=second.address, protocol="https", tls=tls))
        known = Backend(address=first.address)
        await edge.publish(
            Route(name="one", host="a.test", backends=(known,), filters=Filters(mirror=copied), access=PUBLIC)
        )
        assert (await edge.get("a.test")).body == b"first"
        await until(lambda: second.seen)


async def test_the_mirror_gets_what_the_backend_gets(edge: Gateway, tmp_path: Path) -> None:
    """Method, rewritten path, query, body and changed headers are the same; the answer is the first backend's."""
    async with backend(ok(b"first")) as first, backend(ok(b"second"), unix=tmp_path / "m.sock") as second:
        headers = HeaderFilter(set={"x-set": "1"}, remove=("x-gone",))
        await edge.publish(route(first, second.address, rewrite_prefix="/v2", request_headers=headers))
        for method, body in (("GET", b""), ("POST", b"some\x00 body"), ("PUT", b"b" * 60_000), ("DELETE", b"")):
            sent = {"X-Gone": "1", "X-Own": "2", "Cookie": "own=3", "Authorization": "Basic eA=="}
            reply = await edge.ask(method, "a.test", "/a/b?c=d%20", sent, body)
            assert (reply.status, reply.body) == (200, b"first")
            await until(lambda: len(second.seen) == len(first.seen))
            one, two = first.seen[-1], second.seen[-1]
            assert (two.method, two.target, two.body) == (one.method, one.target, one.body)
            assert two.target == "/v2/a/b?c=d%20"
            assert dict(two.headers) | {"connection": ""} == dict(one.headers) | {"connection": ""}
        assert await left_out(edge) == 0


async def test_a_copy_has_no_credential_of_ours_and_the_refused_have_none(edge: Gateway) -> None:
    """Who is not let in is not copied; the cookie and the token that let somebody in stay here."""
    async with backend(ok()) as first, backend(ok()) as second:
        only_ann = Access(kind="subjects", subjects=("ann",))
        await edge.publish(route(first, second.address, access=only_ann), grants=GRANTS)
        assert (await edge.get("a.test")).status == 401
        assert (await edge.get("a.test", Cookie=cookie("a.test") + "; own=1")).status == 200
        assert (await edge.get("a.test", Authorization=f"Bearer {TOKEN}")).status == 200
        await until(lambda: len(second.seen) == len(first.seen) == 2)
        assert [request.header("cookie") for request in second.seen] == ["own=1", None]
        assert [request.header("authorization") for request in second.seen] == [None, None]


async def test_what_becomes_of_a_copy_is_nobodys_business(edge: Gateway) -> None:
    """A mirror that is not there, closes, talks nonsense or says too much fails no request."""

    async def closes(_request: Request) -> None:
        return None

    async with backend(ok(b"first")) as first:
        for answer in (b"nonsense", ok(b"x" * 200_000), closes, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"):
            async with backend(answer) as second:
                await edge.publish(route(first, second.address))
                assert (await edge.get("a.test")).body == b"first"
                await until(lambda second=second: second.seen)
        await edge.publish(route(first, second.address))
        assert [(await edge.get("a.test")).body for _ in range(5)] == [b"first"] * 5


async def test_a_mirror_that_hangs_slows_nobody_and_is_bounded(edge: Gateway) -> None:
    """Requests are answered while it holds its copies; beyond the bound copies are left out, and counted."""
    release = asyncio.Event()

    async def hanging(_request: Request) -> bytes:
        await release.wait()
        return ok()

    async with backend(ok(b"first")) as first, backend(hanging) as second:
        await edge.publish(route(first, second.address))
        replies = [await edge.ask("POST", "a.test", "/", {}, b"body") for _ in range(MOST_OPEN + 20)]
        assert {reply.body for reply in replies} == {b"first"}
        await until(lambda: len(second.seen) == MOST_OPEN)
        async with asyncio.timeout(20):
            while await left_out(edge) < 20:
                await asyncio.sleep(0.1)
        release.set()
        await until(lambda: second.connections == MOST_OPEN)
        before = len(second.seen)
        async with asyncio.timeout(20):
            while len(second.seen) == before:
                await edge.get("a.test")
                await asyncio.sleep(0.05)


async def test_long_bodies_and_those_without_a_length_are_not_copied(edge: Gateway) -> None:
    """The first backend gets all of them as they come; half a copy would be a lie."""
    async with backend() as first, backend(ok()) as second:
        await edge.publish(route(first, second.address))
        assert (await edge.ask("POST", "a.test", "/", {}, b"x" * 70_000)).status == 200
        host = edge.authority("a.test")
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await edge.raw(head.encode() + b"4\r\nbody\r\n0\r\n\r\n")).json()["body"] == "body"
        assert len(first.seen[0].body) == 70_000
        assert (await edge.get("a.test", "/last")).status == 200
        await until(lambda: second.seen)
        assert [request.target for request in second.seen] == ["/last"]


async def test_a_part_of_the_requests_is_copied(edge: Gateway) -> None:
    """About as many as were asked for."""
    async with backend(ok()) as first, backend(ok()) as second:
        await edge.publish(route(first, second.address, percent=25))
        for _ in range(200):
            await edge.get("a.test")
        await asyncio.sleep(0.5)
        assert 10 < len(second.seen) < 110
