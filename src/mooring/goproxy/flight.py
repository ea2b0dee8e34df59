"""One flight for each file, however many ask: the first one's fetch feeds all of them.

Small files travel as bytes (`Once`). A zip is received into the spool (`Flight`) while everybody who asked streams
what is there already, except for its last bytes: those are let go when its hash is right. When it is wrong, or the
source fails, every answer is cut off and nobody holds a complete file that is false.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from mooring.control.tasks import Tasks
from mooring.errors import MooringError, Unavailable
from mooring.goproxy.faults import NoSpace

HELD = 64 * 1024
"""Bytes held back. A zip that is no longer than this is not begun before it is verified, and fails as a status."""
_CHUNK = 256 * 1024


class Once:
    """Equal pieces of work at the same time are done once; a caller that goes away does not end it."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._running: dict[str, asyncio.Future[bytes]] = {}

    async def do(self, key: str, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """The result of `work`, ours or that of whoever came first with this key; its error for all."""
        future = self._running.get(key)
        if future is None:
            future = self._running[key] = asyncio.get_running_loop().create_future()
            _ = self._tasks.spawn(key, self._run(key, work, future))
        return await asyncio.shield(future)

    async def _run(self, key: str, work: Callable[[], Awaitable[bytes]], future: asyncio.Future[bytes]) -> None:
        try:
            result = await work()
        except MooringError as error:
            future.set_exception(error)
            # Everybody who waited may be gone by now; asyncio would report the error as never retrieved.
            future.exception()
        except BaseException:
            future.set_exception(Unavailable("the proxy could not finish this request"))
            future.exception()
            raise
        else:
            future.set_result(result)
        finally:
            del self._running[key]


class Flight:
    """A file on its way into the spool. One writer, any number of readers, memory of a chunk each."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.size: int | None = None
        """What the source said; an answer with a length is checked by its receiver too."""
        self._fd = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # What is not locked is what a killed process left behind: the next sweep removes it.
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        self._received = 0
        self._released = 0
        self._ended = False
        self._landed = False
        self._error: MooringError | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._users = 1

    @property
    def received(self) -> int:
        """Bytes in the spool."""
        return self._received

    @property
    def ended(self) -> bool:
        """Whether everybody may have all of it, or nobody will."""
        return self._ended

    def reserve(self, size: int) -> None:
        """Have room for all of it before anybody is sent a byte: a full disk is a reason then, not a cut. Blocking.

        Raises:
            NoSpace: the disk has not that much.
        """
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            raise NoSpace(f"the proxy's disk has no room for {size} bytes: {error.strerror}") from error

    def write(self, chunk: bytes) -> None:
        """Add bytes.

        Raises:
            NoSpace: the disk takes no more.
        """
        view = memoryview(chunk)
        try:
            while view:
                written = os.pwrite(self._fd, view, self._received)
                self._received += written
                view = view[written:]
        except OSError as error:
            raise NoSpace(f"the proxy's disk takes no more: {error.strerror}") from error
        if self._received - HELD > self._released:
            self._released = self._received - HELD
            self._wake()

    def end(self, error: MooringError | None = None) -> None:
        """Let the last bytes go, or cut everybody off. The first call counts."""
        if self._ended:
            return
        self._ended, self._error = True, error
        if error is None:
            self._released = self.size = self._received
        self._wake()

    def land(self) -> None:
        """The writer is done with the file, whether it was kept or not."""
        self._landed = True
        self._wake()
        self.leave()

    def join(self) -> None:
        """Keep the file open until `leave`."""
        self._users += 1

    def leave(self) -> None:
        """The last one closes the file."""
        self._users -= 1
        if self._users == 0:
            os.close(self._fd)

    async def begun(self) -> None:
        """Wait until there is something to send; raise when the flight failed before."""
        while not self._released and not self._ended:
            await self._change()
        if self._error is not None:
            raise self._error

    async def finished(self) -> None:
        """Wait until the end; raise when the flight failed."""
        while not self._ended:
            await self._change()
        if self._error is not None:
            raise self._error

    async def landed(self) -> None:
        """Wait until the file is where it is kept; raise when the flight failed."""
        while not self._landed:
            await self._change()
        if self._error is not None:
            raise self._error

    @property
    def descriptor(self) -> int:
        """As `Blob` has it, of a finished file."""
        return self._fd

    async def read(self, start: int, length: int) -> bytes:
        """A part of a finished file."""
        return os.pread(self._fd, length, start)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it, as it comes.

        Raises:
            MooringError: the flight failed; what was yielded is worthless.
        """
        at = 0
        while True:
            while at < self._released:
                chunk = os.pread(self._fd, min(_CHUNK, self._released - at), at)
                at += len(chunk)
                yield chunk
            if self._error is not None:
                raise self._error
            if self._ended and at == self._released:
                return
            await self._change()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
