"""What many follow is read once for all of them: an event that a thousand wait for costs one look at the database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from mooring.workspaces.ports import KEPT_EVENTS, Event

LOOK_EVERY_S = 2.0
"""So old may a look be; and another server's events are not told to this one, so its followers look so often."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What stood behind the event `after`. `changed` was to be set by the next change, `until` is the loop's time."""

    after: int
    found: tuple[Event, ...]
    changed: asyncio.Event
    until: float

    def serves(self, event_id: int, now: float) -> bool:
        """Whether nobody needs to look again for what stands behind `event_id`."""
        if self.changed.is_set() or now >= self.until or event_id < self.after:
            return False
        # A full look may have stopped short of the end.
        return len(self.found) < KEPT_EVENTS or event_id < self.found[-1].id


class Followed:
    """The events of one workspace, or of all, for everybody who follows them.

    It remembers the last look, which serves all who stand at its place or further on; who is behind looks for
    themselves. `read` gives up to `KEPT_EVENTS` events behind an id. `alone`: every change is told here.
    """

    def __init__(self, read: Callable[[int], Awaitable[tuple[Event, ...]]], *, alone: bool) -> None:
        self.followers = 0
        self._read = read
        self._alone = alone
        self._changed = asyncio.Event()
        self._looking = asyncio.Lock()
        self._ended = False
        self._last: _Look | None = None
        self._newest = 0

    def tell(self) -> None:
        """Something was added: wake who waits."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """What is followed is gone, and its events with it."""
        self._ended = True
        self.tell()

    async def after(self, event_id: int) -> tuple[Event, ...]:
        """The events behind `event_id`: waits until there is one; none is the end. Raises what `read` does."""
        while not self._ended:
            changed = self._changed
            look = await self._look(event_id)
            if found := tuple(event for event in look.found if event.id > event_id):
                return found
            if self._last is look:
                # Whoever waits stands here: five hundred old events are not kept for as long as nothing happens.
                self._last = replace(look, after=event_id, found=())
            await _wait(changed, None if self._alone else look.until)
        return ()

    async def _look(self, event_id: int) -> _Look:
        # Whoever comes while somebody reads waits for that; one who is cancelled in it leaves it to the next.
        async with self._looking:
            loop = asyncio.get_running_loop()
            if self._last is None or not self._last.serves(event_id, loop.time()):
                changed, until = self._changed, loop.time() + LOOK_EVERY_S
                found = await self._read(event_id)
                if found and found[-1].id > self._newest:
                    self._newest = found[-1].id
                    if not changed.is_set():
                        # Another server's event: the others must not wait for their own time to look.
                        self.tell()
                        changed = self._changed
                self._last = _Look(event_id, found, changed, until)
            return self._last


async def _wait(changed: asyncio.Event, until: float | None) -> None:
    try:
        async with asyncio.timeout_at(until):
            await changed.wait()
    except TimeoutError:
        return
