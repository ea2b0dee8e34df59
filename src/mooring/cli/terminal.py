"""This process's own input, output and terminal, for code on an event loop.

No descriptor is made non-blocking: it is shared with the shell that started us, which would find it so afterwards.
"""

import asyncio
import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator

CHUNK = 64 * 1024
# A pipe that is ready takes this much at once (pipe(7), PIPE_BUF); more could block the loop.
AT_ONCE = 4096


async def read(fd: int) -> bytes:
    """The next bytes; empty at the end, also when the descriptor is closed or the terminal is gone."""
    try:
        await _ready(fd, writing=False)
        return os.read(fd, CHUNK)
    except OSError:
        return b""


async def write(fd: int, data: bytes) -> None:
    """All of `data`.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    view = memoryview(data)
    while view:
        await _ready(fd, writing=True)
        view = view[os.write(fd, view[:AT_ONCE]) :]


async def _ready(fd: int, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    ready = asyncio.Event()
    try:
        add(fd, ready.set)
    except PermissionError:
        # epoll(7) refuses regular files, which are always ready.
        return
    try:
        await ready.wait()
    finally:
        remove(fd)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal passes every key on as it is; afterwards it is as before, whatever happened."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP cancel the running task, so that what is being left is put in order; then they take effect."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    came: list[int] = []

    def stop(number: int) -> None:
        came.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    except asyncio.CancelledError:
        if not came:
            raise
        raise SystemExit(128 + came[0]) from None
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def size(fd: int) -> tuple[int, int] | None:
    """Columns and rows; None when it is no terminal, or one that has no size, as a serial line or `expect`'s."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return None
    return (found.columns, found.lines) if found.columns and found.lines else None
