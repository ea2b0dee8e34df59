"""Parts of a server that are replaced while it serves: what began with them ends with them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Occupied:
    """Counts who is inside. Belongs to one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside until the end of the block."""
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def left(self, within_s: float) -> int:
        """Wait until nobody is inside; how many still are when that takes longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        return self._inside
