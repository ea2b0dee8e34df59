"""How long to wait before the next try, and the machine's clock."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mooring.control.backoff import Backoff
from mooring.control.clock import SystemClock


@given(
    st.floats(0.001, 10),
    st.floats(1, 4),
    st.floats(0.001, 100),
    st.floats(0, 0.5),
    st.integers(0, 10_000),
    st.integers(0, 99),
)
def test_a_delay_grows_to_its_limit_and_never_leaves_its_spread(
    first: float, factor: float, most: float, jitter: float, attempt: int, seed: int
) -> None:
    """Whatever the attempt, the delay is positive, bounded, and as far from the plain one as the jitter allows."""
    backoff = Backoff(first=first, factor=factor, most=most, jitter=jitter)
    delay = backoff.delay(attempt, random.Random(seed))  # noqa: S311 - a delay is no secret
    plain = min(most, first * factor ** min(attempt, 64))
    assert plain * (1 - jitter) * 0.999 <= delay <= plain * (1 + jitter) * 1.001
    assert delay > 0


def test_many_clients_do_not_come_back_at_the_same_instant() -> None:
    """The spread differs from call to call."""
    backoff = Backoff()
    assert len({backoff.delay(3) for _ in range(50)}) > 40


async def test_the_machines_clock_goes_forward() -> None:
    """Monotonic time passes with a sleep, and the wall clock is in this century."""
    clock = SystemClock()
    begun = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - begun > 0.005
    assert clock.now() > 1_600_000_000
