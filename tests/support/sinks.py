"""The route sinks that the contract suite runs on. A new one adds itself to `SINKS`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from mooring.gateway.memory import MemorySink
from mooring.routes.ports import RouteSink

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


SINKS: dict[str, SinkFactory] = {"memory": memory}
