"""Waiting for what is away: a database that is locked, a disk that is full."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from mooring.control.backoff import Backoff
from mooring.errors import Unavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")
_AGAIN = Backoff(first=0.2, most=5.0)


async def until_available(what: str, work: Callable[[], Awaitable[T]], *, backoff: Backoff = _AGAIN) -> T:
    """The result of `work`, tried again for as long as it raises `Unavailable`; `what` names it in the log."""
    attempt = 0
    while True:
        try:
            return await work()
        except Unavailable as error:
            log.warning("something is away", needed_for=what, reason=error.detail)
        await asyncio.sleep(backoff.delay(attempt))
        attempt += 1
