"""Events on their way to the database: one that cannot be written now is written later, with the time it happened."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from mooring.control.backoff import Backoff
from mooring.control.clock import Clock
from mooring.errors import Unavailable
from mooring.workspaces.ports import EventLog

log = structlog.get_logger(__name__)

MOST = 10_000
"""Events that wait at the same time: a few MB. The oldest is given up first, as the log itself does."""
# A state must be true again within 5 s of the end of whatever was broken, and its history too.
RETRY = Backoff(first=0.1, most=3.0)


@dataclass(frozen=True, slots=True)
class _Told:
    workspace: str
    kind: str
    text: str
    data: Mapping[str, Any] | None
    at: float


class Outbox:
    """Tells events in order. `run` it once; `flush` before a normal stop.

    At least once: a database that dies in the moment of the commit may have an event twice, and loses none.
    """

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._waiting: deque[_Told] = deque()
        self._writing = asyncio.Lock()
        self._held_up = asyncio.Event()
        self._why = ""

    def problems(self) -> tuple[str, ...]:
        """What a person should know: that events wait, and why."""
        return (f"{self.depth} events wait to be written: {self._why}",) if self._why and self._waiting else ()

    @property
    def depth(self) -> int:
        """Events that are not written yet."""
        return len(self._waiting)

    async def tell(
        self, workspace_id: str, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> None:
        """Have it kept: written on return, unless the log is away. `at` is when it happened, now when None."""
        if len(self._waiting) >= MOST:
            lost = self._waiting.popleft()
            log.error("event lost", workspace=lost.workspace, kind=lost.kind, text=lost.text, waiting=MOST)
        self._waiting.append(_Told(workspace_id, kind, text, data, self._clock.now() if at is None else at))
        if self._held_up.is_set():
            return  # a workspace must not wait for a time-out of the database at each of its events
        try:
            await self._write()
        except Unavailable as error:
            log.warning("events wait for the database", waiting=self.depth, error=error.detail)

    async def run(self) -> None:
        """Write what was held up as soon as that is possible, for ever."""
        attempt = 0
        while True:
            await self._held_up.wait()
            await self._clock.sleep(RETRY.delay(attempt))
            attempt += 1
            try:
                await self._write()
            except Unavailable:
                continue
            log.info("events written that had waited", attempts=attempt)
            attempt = 0

    async def flush(self, within_s: float) -> None:
        """Try once more to write what waits; what then still does is in the program's log."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(within_s):
                await self._write()
        for told in self._waiting:
            log.error("event lost", workspace=told.workspace, kind=told.kind, text=told.text, at=told.at)

    def forget(self, workspace_id: str) -> None:
        """Drop what waits of a workspace that was removed: its history is gone."""
        self._waiting = deque(told for told in self._waiting if told.workspace != workspace_id)

    async def _write(self) -> None:
        async with self._writing:
            while self._waiting:
                told = self._waiting[0]
                try:
                    await self._events.append(told.workspace, told.kind, told.text, told.data, at=told.at)
                except (Unavailable, asyncio.CancelledError) as error:
                    self._held_up.set()
                    self._why = error.detail if isinstance(error, Unavailable) else self._why
                    raise
                except Exception as error:  # one that the database refuses would hold up all that follow
                    log.exception("event lost", workspace=told.workspace, text=told.text, exc_info=error)
                # It may have been given up or forgotten meanwhile.
                if self._waiting and self._waiting[0] is told:
                    self._waiting.popleft()
            self._held_up.clear()
            self._why = ""
