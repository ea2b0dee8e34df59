"""The route sinks that the contract suite runs on. A new one adds itself to `SINKS`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from mooring.gateway.memory import MemorySink
from mooring.routes.ports import RouteSink
from support.nginx import Gateway, gateway

AMPLE = 8 * 2**20
SMALL = 128 * 2**10


class SinkUnderTest(Protocol):
    """A sink, and what a client of the gateway sees of it."""

    sink: RouteSink

    async def location(self, host: str, path: str, *, token: str = "") -> str | None:
        """The path in the `Location` of the redirect that answers `GET path` with that Host and bearer token.

        None when no route serves the request, or when it is not let in.
        """

    async def forget(self) -> None:
        """Lose the table, as a fresh nginx would have none."""


SinkFactory = Callable[[Path, int], AbstractAsyncContextManager[SinkUnderTest]]
"""Starts a sink below a folder, with about so many bytes for its table (`AMPLE` or `SMALL`), and stops it."""


class MemoryUnderTest:
    """The in-memory sink."""

    def __init__(self, capacity: int) -> None:
        self.sink = MemorySink(capacity=capacity)

    async def location(self, host: str, path: str, *, token: str = "") -> str | None:
        route = self.sink.serves(host, path)
        if route is None or route.filters.redirect is None:
            return None
        public = route.access.kind == "public"
        return route.filters.redirect.path if public or self.sink.knows(token) else None

    async def forget(self) -> None:
        self.sink.forget()


@asynccontextmanager
async def memory(_folder: Path, capacity: int):  # noqa: ANN201 - a factory of the type above
    """Nothing to start."""
    yield MemoryUnderTest(capacity)


class NginxUnderTest:
    """A real nginx."""

    def __init__(self, started: Gateway) -> None:
        self._gateway = started
        self.sink = started.sink

    async def location(self, host: str, path: str, *, token: str = "") -> str | None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        reply = await self._gateway.ask("GET", host, path, headers)
        return urlsplit(reply.headers["location"]).path if reply.status == 302 else None

    async def forget(self) -> None:
        """Kill the master; the supervision starts a fresh one."""
        await self._gateway.killed()


@asynccontextmanager
async def nginx(folder: Path, capacity: int):  # noqa: ANN201 - a factory of the type above
    """An nginx of its own."""
    async with gateway(folder, table_bytes=capacity) as started:
        yield NginxUnderTest(started)


SINKS: dict[str, SinkFactory] = {"memory": memory, "nginx": nginx}
