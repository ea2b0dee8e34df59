"""Time as a port, so that the tests can turn the hands."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall-clock seconds for what people read, monotonic seconds for what code waits for."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
