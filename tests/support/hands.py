"""A clock that a test turns."""

from dataclasses import dataclass


@dataclass
class Hands:
    """Its seconds pass when the test, or what sleeps by it, says so; while the machine slept only people's passed."""

    seconds: float = 1_000_000.0
    slept: float = 0.0

    def now(self) -> float:
        return self.seconds + self.slept

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
