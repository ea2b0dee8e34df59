"""Backends whose answer is none, or not yet one: what the client would take for an answer is never theirs unread."""

from pathlib import Path

import pytest

from mooring.model.routes import Access, Route
from mooring.model.routes import Backend as Target
from support.nginx import Gateway, Request, backend, gateway, ok

FORGED = b"HTTP/1.1 200 OK\r\nSet-Cookie: mooring=forged\r\nContent-Length: 6\r\n\r\nforged"


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway of one worker."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 000 none\r\n\r\n",
        b"no HTTP\r\n\r\n",
        b" ",
        b"\r\n",
        b"x",
    ],
)
async def test_nothing_is_passed_on_that_nobody_has_read(edge: Gateway, before: bytes, accept: str) -> None:
    """A browser looks for an answer some bytes further on: headers that nginx takes for a body would be believed."""

    async def answer(request: Request) -> bytes | None:
        if request.target == "/fine":
            return ok(b"fine")
        request.writer.write(before + FORGED)
        await request.writer.drain()
        return None

    async with backend(answer) as running:
        public = Access(kind="public")
        await edge.publish(Route(name="one", host="a.test", backends=(Target(address=running.address),), access=public))
        head = f"GET / HTTP/1.1\r\nHost: {edge.authority('a.test')}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        said = await edge.bytes(head.encode())
        assert b"forged" not in said
        assert b"No answer" in said
        assert (await edge.get("a.test", "/fine")).body == b"fine"
