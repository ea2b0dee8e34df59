"""The keeper's event loop: descriptors, signals' wake-ups and timers on one poll(2). asyncio would double its memory.

Imported by the keeper: no typing, no dataclasses.
"""

import heapq
import select
import time
from collections.abc import Callable


class Poller:
    """Waits for descriptors and times, and calls what was registered for them."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._running = False

    def watch(self, descriptor: int, handler: Callable[[], None], events: int = select.POLLIN) -> None:
        """Call `handler` whenever the descriptor is ready or hung up."""
        self._poll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def forget(self, descriptor: int) -> None:
        """Stop watching it."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, `seconds` from now."""
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, callback))

    def run(self) -> None:
        """Until `stop`."""
        self._running = True
        while self._running:
            for descriptor, _ in self._poll.poll(self._timeout_ms()):
                # A handler before it in the same round may have closed it.
                if (handler := self._handlers.get(descriptor)) is not None:
                    handler()
            self._ring()

    def stop(self) -> None:
        """Leave `run` after this round."""
        self._running = False

    def _timeout_ms(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic()) * 1000 + 1

    def _ring(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now and self._running:
            heapq.heappop(self._timers)[2]()
