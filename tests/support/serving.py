"""An ASGI application behind a real uvicorn, in the test's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

from mooring.control.tasks import Tasks

_WITHIN_S = 10.0
_GRACE_S = 2.0


class _Server(uvicorn.Server):
    """Leaves the process's signals alone, and ends when it is told: uvicorn's own looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # Sets the headers that every answer has.
        await self.on_tick(0)
        await self.told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is None
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                while state.connections or state.tasks:
                    await asyncio.sleep(0.001)
        for task in state.tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def serving(config: uvicorn.Config, closing: asyncio.Event | None = None) -> AsyncIterator[Any]:
    """Serve until the end of the block, and give the socket's address.

    `closing` is what streams look at that would go on otherwise: it is set before the server ends.
    """
    server = _Server(config)
    async with Tasks("uvicorn") as tasks:
        running = tasks.spawn("serve", server.serve())
        async with asyncio.timeout(_WITHIN_S):
            while not server.started:
                await asyncio.sleep(0.001)
        try:
            yield server.servers[0].sockets[0].getsockname()
        finally:
            if closing is not None:
                closing.set()
            server.told.set()
            await running
