"""A clock that a test turns."""

from dataclasses import dataclass


@dataclass
class Hands:
    """Its seconds pass when the test, or what sleeps by it, says so."""

    seconds: float = 1_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
