"""Follows a route source into a table, as a gateway does, and waits for what a test expects."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from mooring.control.tasks import Tasks
from mooring.model.routes import Route
from mooring.routes.ports import RouteSource, SectionChange
from mooring.routes.table import RouteTable

PATIENCE_S = 20.0


class Followed:
    """What a source has published until now."""

    def __init__(self, source: RouteSource) -> None:
        self.source = source
        self.table = RouteTable()
        self.changes: list[SectionChange] = []

    @property
    def routes(self) -> dict[str, Route]:
        """The section's routes by name."""
        return {key.name: route for key, route in self.table.routes().items()}

    async def run(self) -> None:
        """Follow for ever."""
        async with aclosing(self.source.watch()) as changes:
            async for change in changes:
                self.changes.append(change)
                self.table.apply(change, self.source.rank)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition` holds; fails after a patience that no healthy machine needs."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never came true: {what or condition}") from None


@asynccontextmanager
async def following(source: RouteSource) -> AsyncIterator[Followed]:
    """Follow `source` meanwhile."""
    followed = Followed(source)
    async with Tasks("following") as tasks:
        tasks.forever("source", followed.run())
        yield followed
