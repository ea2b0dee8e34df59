"""How long to wait before the next try."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before try n (from 0): `first · factor^n`, at most `most`, spread by ±`jitter` of it.

    The spread keeps many clients of one broken thing from coming back at the same instant.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.1

    def delay(self, attempt: int, rng: random.Random | None = None) -> float:
        """Seconds to wait after the `attempt`-th failure, counted from 0."""
        base = min(self.most, self.first * self.factor ** min(attempt, 64))
        spread = (rng or random).uniform(-self.jitter, self.jitter)
        return base * (1 + spread)
