"""What the answers of a gateway say about an editor, and which of them say nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mooring.errors import Unavailable
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.server.probe import GatewayProbe
from mooring.settings import Listen

TEMPLATE = Template(name="light", editor=Editor(command=("x",)))
WORKSPACE = Workspace(
    id="0123456789",
    owner="ada",
    name="one",
    spec=Spec(template="light"),
    desired=Desired.running,
    phase=Phase.starting,
)
HTML = b"Content-Type: text/html\r\n"
PROBLEM = b"Content-Type: application/problem+json\r\n"


@asynccontextmanager
async def gateway(answer: bytes | None) -> AsyncIterator[tuple[GatewayProbe, list[bytes]]]:
    """A gateway that answers each request so; None: it never does. And what it was asked."""
    asked: list[bytes] = []
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield GatewayProbe(Listen(port=port), "the-token"), asked
        if asked:
            await served.wait()
            await asyncio.sleep(0)


async def test_it_asks_as_a_browser_would() -> None:
    """The workspace's own host, the template's health path, the probe's own token."""
    async with gateway(b"HTTP/1.1 200 OK\r\n\r\n") as (probe, asked):
        assert await probe.answered(WORKSPACE, TEMPLATE)
    assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: one--ada.localhost\r\n")
    assert b"\r\nAuthorization: Bearer the-token\r\n" in asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\n" + PROBLEM + b"\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\n" + PROBLEM + b"\r\n",
        b"HTTP/1.1 404 Not Found\r\n" + PROBLEM + b"\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n" + HTML + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n",
        None,
    ],
)
async def test_anything_but_200_is_no_answer_of_the_editor(answer: bytes | None) -> None:
    """Errors, a log-in page of the editor's own and silence mean that it is not ready."""
    async with gateway(answer) as (probe, _):
        assert not await probe.answered(WORKSPACE, TEMPLATE)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n" + PROBLEM + b"\r\n",
        b"HTTP/1.1 403 Forbidden\r\n" + PROBLEM + b"\r\n",
    ],
)
async def test_a_gateway_that_does_not_let_it_in_says_nothing(answer: bytes) -> None:
    """A gateway that does not know the probe's token yet, or dies, says nothing about the editor."""
    async with gateway(answer) as (probe, _):
        with pytest.raises(Unavailable):
            await probe.answered(WORKSPACE, TEMPLATE)


async def test_a_gateway_that_is_gone_says_nothing() -> None:
    """A refused connection is the gateway's matter."""
    async with gateway(b"") as (probe, _):
        pass
    with pytest.raises(Unavailable, match="the gateway does not answer at"):
        await probe.answered(WORKSPACE, TEMPLATE)
