"""How a child of the supervisor learns that it should end, and whether the workspaces end with it."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

REPLACED = signal.SIGUSR1
"""Tells the supervisor, and it its server, that another Mooring takes this one's place."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, REPLACED)


@contextmanager
def held() -> Iterator[None]:
    """Signals to a child that is started within wait until it listens.

    Else one that comes in its first second would end it before it could stop a workspace.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Ending(StrEnum):
    """`stop` is a person's wish: workspaces stop too. `replaced`: all of Mooring ends, and workspaces run on.

    `orphaned`: the supervisor died; nothing else is touched.
    """

    stop = "stop"
    replaced = "replaced"
    orphaned = "orphaned"


class Lifetime:
    """Resolves once, by SIGTERM, REPLACED or the end of the lifeline (a pipe that closes with the supervisor)."""

    def __init__(self, lifeline: int | None) -> None:
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._lifeline = lifeline

    def watch(self) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, Ending.stop)
        loop.add_signal_handler(REPLACED, self._end, Ending.replaced)
        if self._lifeline is not None:
            os.set_blocking(self._lifeline, False)
            loop.add_reader(self._lifeline, self._lifeline_closed)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    async def ended(self) -> Ending:
        """Why this process should end now."""
        return await asyncio.shield(self._ended)

    def _end(self, ending: Ending) -> None:
        if not self._ended.done():
            self._ended.set_result(ending)

    def _lifeline_closed(self) -> None:
        if self._lifeline is not None:
            asyncio.get_running_loop().remove_reader(self._lifeline)
        self._end(Ending.orphaned)
