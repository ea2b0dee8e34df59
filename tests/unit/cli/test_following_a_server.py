"""Following server-sent events of a server that breaks off."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mooring.cli import client
from mooring.cli.client import Api
from mooring.cli.endpoint import Endpoint
from mooring.errors import Unavailable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


async def followed(answer: Answer) -> list[str]:
    """The data of the events that a client hears; `answer` is told the number of its connection."""
    count = 0

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await reader.readuntil(b"\r\n\r\n")
        count += 1
        await answer(writer, count)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with Api(Endpoint(f"http://localhost:{port}", "127.0.0.1", port, "token", local=True)) as api:
            async with asyncio.timeout(60):
                heard = await asyncio.to_thread(lambda: list(api.follow("events", {}, resume="after")))
    return [sent.data for sent in heard]


async def test_a_server_that_ends_every_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that accepts each request and then fails at once is an error, as one that is away is."""
    monkeypatch.setattr(client, "AWAY_S", 1.0)

    async def answer(writer: asyncio.StreamWriter, _count: int) -> None:
        writer.write(HEAD)

    with pytest.raises(Unavailable, match="ends every answer before it says anything"):
        await followed(answer)


async def test_a_server_that_was_quiet_for_long_may_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment in quiet times is a sign of life: the time to come back begins at the break, not at the last event."""
    monkeypatch.setattr(client, "AWAY_S", 3.0)

    async def answer(writer: asyncio.StreamWriter, count: int) -> None:
        if count == 1:
            writer.write(HEAD + b": quiet\n\n")
            await writer.drain()
            await asyncio.sleep(3.5)
        elif count == 3:
            writer.write(HEAD + b"id: 1\ndata: here\n\nevent: end\ndata: {}\n\n")

    assert await followed(answer) == ["here"]
