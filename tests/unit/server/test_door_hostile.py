"""What clients and applications must not do to the door: half an end, odd versions, headers with lines of their own."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mooring.server import door
from mooring.server.exchange import Exchange, Receive, Scope, Send

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 8 * 2**20
GREEDY = 8
MOST_WAITING = 200

Work = Callable[[int], Awaitable[None]]


class App:
    """Answers by the path, sometimes as no application should."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(LARGE))
        self.file = file

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await getattr(self, scope["path"].strip("/") or "small")(send)

    async def start(self, send: Send, length: int | None, *more: tuple[bytes, bytes]) -> None:
        counted = [] if length is None else [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": [*counted, *more]})

    async def small(self, send: Send) -> None:
        await self.start(send, 2)
        await send({"type": "http.response.body", "body": b"ok"})

    async def large(self, send: Send) -> None:
        await self.start(send, LARGE)
        with self.file.open("rb") as file:
            await send({"type": "http.response.zerocopysend", "file": file.fileno(), "offset": 0, "count": LARGE})

    async def endless(self, send: Send) -> None:
        await self.start(send, None)
        await send({"type": "http.response.body", "body": b"ok"})

    async def line(self, send: Send) -> None:
        await self.start(send, 0, (b"x", b"a\nset-cookie: b"))
        await send({"type": "http.response.body", "body": b""})

    async def half_a_line(self, send: Send) -> None:
        await self.start(send, 0, (b"x", b"a\rset-cookie: b"))
        await send({"type": "http.response.body", "body": b""})

    async def two_heads(self, send: Send) -> None:
        await self.start(send, 10)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await self.small(send)

    async def two_ends(self, send: Send) -> None:
        await self.endless(send)
        await send({"type": "http.response.body", "body": b"more"})


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Work], None]:
    """Runs a test's work beside a door, with its port, in either event loop."""

    def run(work: Work) -> None:
        async def beside() -> None:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                async with asyncio.timeout(60), door.answering(App(tmp_path / "file"), listener):
                    await work(listener.getsockname()[1])

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(beside())

    return run


async def asked(port: int, request: bytes, *, end: bool = False) -> bytes:
    """All that comes until the connection ends; with `end` the client closes its half after the request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if end:
        writer.write_eof()
    try:
        found = await reader.read()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return found


def test_half_an_end_cuts_nothing_off(run: Any) -> None:  # noqa: ANN401 - the fixture
    """A client that says at once that it will send no more gets all of what was begun."""

    async def work(port: int) -> None:
        head, _, body = (await asked(port, GET % b"/large", end=True)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert len(body) == LARGE

    run(work)


def test_a_client_that_is_gone_is_not_served(run: Any) -> None:  # noqa: ANN401 - the fixture
    """One that closes in the middle of an answer ends it, and its connection."""

    async def work(port: int) -> None:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET % b"/large")
            await reader.readexactly(100)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        async with asyncio.timeout(20):
            while any("connection" in task.get_name() for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)

    run(work)


@pytest.mark.parametrize(
    "request_line",
    [b"GET /endless HTTP/2.0", b"GET /endless HTTP/0.9", b"GET /endless", b"PRI * HTTP/2.0", b"GET /endless HTTP/1.2"],
)
def test_other_versions_are_refused(run: Any, request_line: bytes) -> None:  # noqa: ANN401 - the fixture
    """An answer without a length would have no end that they know, on a connection that they keep."""

    async def work(port: int) -> None:
        answer = await asked(port, request_line + b"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" + GET % b"/small")
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"\r\n\r\nok" not in answer

    run(work)


@pytest.mark.parametrize("path", [b"/line", b"/half_a_line"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_no_header_has_a_line_of_its_own(run: Any, path: bytes, version: bytes) -> None:  # noqa: ANN401 - the fixture
    """Whether the connection is kept or not."""

    async def work(port: int) -> None:
        answer = await asked(port, b"GET %b HTTP/%b\r\nHost: x\r\n\r\n" % (path, version))
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"set-cookie" not in answer

    run(work)


def test_an_answer_has_one_head(run: Any) -> None:  # noqa: ANN401 - the fixture
    """What is refused in the middle is cut off: the refusal would be taken for the rest of it."""

    async def work(port: int) -> None:
        answer = await asked(port, GET % b"/two_heads" + GET % b"/small")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith(b"\r\n\r\nhalf")

    run(work)


def test_an_answer_has_one_end(run: Any) -> None:  # noqa: ANN401 - the fixture
    """What comes after it is not taken for the next answer."""

    async def work(port: int) -> None:
        request = b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await asked(port, GET % b"/two_ends" + request)
        assert b"more" not in answer
        assert answer.endswith(b"\r\n\r\nok")

    run(work)


def test_requests_that_wait_are_not_taken_apart(run: Any) -> None:  # noqa: ANN401 - the fixture
    """Clients that do not read and send thousands of requests meanwhile hold bytes, not requests; all are answered."""
    many = 1500

    async def work(port: int) -> None:
        clients = [await asyncio.open_connection("127.0.0.1", port, limit=2**16) for _ in range(GREEDY)]
        for _, writer in clients:
            writer.write(GET % b"/large" + GET % b"/small" * many)
        await asyncio.sleep(0.5)
        waiting = sum(isinstance(one, Exchange) for one in gc.get_objects())
        assert GREEDY <= waiting < GREEDY * MOST_WAITING
        for reader, writer in clients:
            await reader.readexactly(LARGE)
            writer.write(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).count(b"\r\n\r\nok") == many + 1
            writer.close()

    run(work)
