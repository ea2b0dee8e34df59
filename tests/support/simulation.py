"""A simulated event loop: virtual time, and a seeded order of the callbacks that are ready.

    def scenario(rng: random.Random) -> Coroutine: ...
    explore(scenario, seeds=1000)

Nothing waits in real time: when nothing is ready, the clock jumps to the next timer. Callbacks that are ready at the
same moment run in an order drawn from the seed, so that each seed is another legal schedule, and the same seed the
same one. A failure names its seed; `explore(..., only=SEED)` replays it.
"""

import asyncio
import functools
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any

STEPS = 200_000
"""Callbacks in one run; a scenario that needs more does not end."""

SOME = 3
"""Orders for a test that is about something else."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop without sockets and threads, whose time passes only while nothing is ready."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._now = 0.0
        self._steps = 0
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def _run_once(self) -> None:
        """Run one ready callback; with none ready, go to the next timer. Overrides asyncio's own step."""
        self._steps += 1
        if self._steps > STEPS:
            raise RuntimeError(f"the scenario does not end: {STEPS} callbacks at {self._now} s")
        if not self._ready and self._scheduled:
            self._now = max(self._now, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        if not self._ready:
            raise RuntimeError("everything waits for something that never comes")
        self._ready.rotate(-self._rng.randrange(len(self._ready)))
        handle = self._ready.popleft()
        if not handle._cancelled:
            handle._run()

    def _write_to_self(self) -> None:
        """Nothing waits in a selector that would have to be woken."""

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing is ever selected."""


class LoopClock:
    """The simulated loop's time, as code takes it."""

    def now(self) -> float:
        return 1_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Failed(AssertionError):
    """A scenario failed; its text names the seed."""


def run(scenario: Callable[[random.Random], Coroutine[Any, Any, None]], seed: int) -> None:
    """Run one schedule.

    Raises:
        Failed: the scenario failed, or something in it did so unseen.
    """
    rng = random.Random(seed)  # noqa: S311 - a schedule is no secret
    loop = SimulatedLoop(rng)
    try:
        loop.run_until_complete(scenario(rng))
        left = [task.get_name() for task in asyncio.all_tasks(loop)]
        assert not left, f"tasks left: {left}"
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]
        assert not timers, f"timers left: {timers}"
        assert not loop.errors, loop.errors
    except BaseException as error:
        raise Failed(
            f"{getattr(scenario, '__name__', scenario)} fails with seed {seed}: replay it with only={seed}"
        ) from error
    finally:
        loop.close()


def explore(
    scenario: Callable[[random.Random], Coroutine[Any, Any, None]], *, seeds: int, only: int | None = None
) -> None:
    """Run the scenario under `seeds` different schedules, or just under one of them."""
    for seed in range(seeds) if only is None else (only,):
        run(scenario, seed)


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test whose waiting takes no time, under some orders of what happens at once."""

    @functools.wraps(test)
    def under_some_orders(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 - whatever the test takes
        def scenario(_: random.Random) -> Coroutine[Any, Any, None]:
            return test(*arguments, **named)

        scenario.__name__ = test.__name__
        explore(scenario, seeds=SOME)

    return under_some_orders
