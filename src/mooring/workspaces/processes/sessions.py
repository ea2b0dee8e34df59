"""A command that runs inside a workspace, as the server sees it: its ends of the pipes or of the terminal.

The keeper starts it and waits for it; the descriptors travel over the keeper's socket. The server's death closes them,
which the command meets as a closed pipe or a hang-up, as with any broken terminal.
"""

import asyncio
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mooring.workspaces.ports import Channel
from mooring.workspaces.processes.keepers import Link

_CHUNK = 65536
_KILL_AFTER_S = 2.0


class Session:
    """An `ExecSession`. Its descriptors close at the ends of its output and its life, all of them at `close`."""

    def __init__(self, link: Link, stdin: int, outputs: Mapping[int, Channel]) -> None:
        self._link = link
        self._stdin = stdin
        self._outputs = dict(outputs)
        self._key = ""
        self._exit: asyncio.Future[Any] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        for descriptor in (stdin, *outputs):
            os.set_blocking(descriptor, False)

    @classmethod
    async def start(cls, link: Link, command: Sequence[str], environment: Mapping[str, str], *, tty: bool) -> "Session":
        """Raises Conflict when the command cannot be started, Unavailable when the keeper is gone."""
        session, theirs = _terminal(link) if tty else _pipes(link)
        message = {"argv": list(command), "environment": dict(environment), "tty": tty}
        try:
            await session.begin(message, theirs)
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)
        return session

    async def begin(self, message: Mapping[str, Any], theirs: Sequence[int]) -> None:
        """Have the keeper start the command with `theirs`; raises as `start` does."""
        try:
            self._key, self._exit = await self._link.execute(message, theirs)
        except BaseException:
            self._close_ends()
            raise
        self._exit.add_done_callback(lambda _: self._exited())

    async def write(self, data: bytes) -> None:
        if not data and self._stdin not in self._outputs:
            self._close(self._stdin)
            return
        # A terminal has one descriptor: its end of input is a character.
        view = memoryview(data or b"\x04")
        while view and self._stdin >= 0:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await self._ready([self._stdin], writing=True)
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                return  # it does not read any more; its exit status says the rest

    async def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        while self._outputs:
            said = [(fd, channel, self._read(fd)) for fd, channel in self._outputs.items()]
            for fd, channel, data in said:
                if data:
                    yield channel, data
                elif data is not None:
                    self._close(fd)
            if self._outputs and all(data is None for _, _, data in said):
                await self._ready(list(self._outputs), writing=False)

    async def resize(self, columns: int, rows: int) -> None:
        for descriptor in self._outputs:
            if os.isatty(descriptor):
                fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        if self._exit is None:
            raise RuntimeError("the session was not started")
        return int((await asyncio.shield(self._exit))["status"])

    async def close(self) -> None:
        try:
            for number in (signal.SIGHUP, signal.SIGKILL):
                if self._exit is None or self._exit.done():
                    return
                await self._link.send({"op": "signal", "key": self._key, "signal": int(number)})
                await asyncio.wait([self._exit], timeout=_KILL_AFTER_S)
        finally:
            self._close_ends()

    def _read(self, descriptor: int) -> bytes | None:
        """What is there; None: nothing now, empty: never again."""
        try:
            return os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""  # EIO: the last process has closed the terminal

    async def _ready(self, descriptors: Sequence[int], *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._waiting.add(ready)
        for descriptor in descriptors:
            (loop.add_writer if writing else loop.add_reader)(descriptor, _wake, ready)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            for descriptor in descriptors:
                (loop.remove_writer if writing else loop.remove_reader)(descriptor)

    def _exited(self) -> None:
        # A terminal stays open for what the command left in it, until it was read.
        if self._stdin not in self._outputs and not self._waiting:
            self._close(self._stdin)

    def _close(self, descriptor: int) -> None:
        known = descriptor == self._stdin or descriptor in self._outputs
        if descriptor < 0 or not known:
            return
        self._outputs.pop(descriptor, None)
        if descriptor == self._stdin:
            self._stdin = -1
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)
        os.close(descriptor)

    def _close_ends(self) -> None:
        for descriptor in (self._stdin, *list(self._outputs)):
            self._close(descriptor)
        for ready in self._waiting:
            _wake(ready)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _pipes(link: Link) -> tuple[Session, list[int]]:
    their_in, stdin = os.pipe()
    stdout, their_out = os.pipe()
    stderr, their_err = os.pipe()
    session = Session(link, stdin, {stdout: Channel.stdout, stderr: Channel.stderr})
    return session, [their_in, their_out, their_err]


def _terminal(link: Link) -> tuple[Session, list[int]]:
    ours, theirs = os.openpty()
    return Session(link, ours, {ours: Channel.stdout}), [theirs, theirs, theirs]
