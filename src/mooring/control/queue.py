"""Keys that wait for work: each once, never twice at the same time, the oldest first.

The queue carries names, not changes: whoever takes a key reads everything about it and then acts. So a thousand adds
of a key that waits are one piece of work, and an add while the key is being worked on is one more afterwards.
"""

import asyncio
import random

from mooring.control.backoff import Backoff


class Queue:
    """Serial per key, deduplicated. Belongs to one event loop; every method but `get` returns at once.

    Nothing is lost: after `add(key)` some `get` that begins its work later returns the key.
    """

    def __init__(self, *, backoff: Backoff | None = None, rng: random.Random | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._rng = rng
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()
        self._working: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def add(self, key: str) -> None:
        """Have `key` worked on as soon as possible, also when it is in a backoff."""
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._working:
                self._ready.put_nowait(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Have `key` worked on in `seconds`, or sooner: of several delays of one key the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is None or loop.time() + seconds < timer.when():
            if timer is not None:
                timer.cancel()
            self._timers[key] = loop.call_later(seconds, self._fire, key)

    def retry(self, key: str) -> float:
        """Have `key` worked on after its own backoff, which grows with each call. The delay in seconds."""
        attempt = self._failures.get(key, 0)
        self._failures[key] = attempt + 1
        delay = self._backoff.delay(attempt, self._rng)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: str) -> None:
        """Begin the key's backoff anew."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """How often `key` failed in a row."""
        return self._failures.get(key, 0)

    @property
    def failing(self) -> tuple[str, ...]:
        """Keys whose last work failed."""
        return tuple(self._failures)

    async def get(self) -> str:
        """The key that waits longest, now in work: nobody else gets it before `done(key)`."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """End the work on `key`; what was added meanwhile is ready now."""
        self._working.discard(key)
        if key in self._waiting:
            self._ready.put_nowait(key)

    @property
    def depth(self) -> int:
        """Keys that wait to be worked on now, those in a delay not counted."""
        return len(self._waiting)

    @property
    def busy(self) -> frozenset[str]:
        """Keys that wait or are in work; those in a delay do not count."""
        return frozenset(self._waiting | self._working)

    def close(self) -> None:
        """Cancel the delays, so that no timer outlives the queue's owner."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)
