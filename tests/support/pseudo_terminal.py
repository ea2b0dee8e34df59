"""A program with a terminal, and somebody who types."""

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

WITHIN_S = 30
_CHUNK = 65536


@dataclass
class Terminal:
    """A terminal's screen side: what was shown, and keys to press."""

    fd: int
    theirs: int
    process: asyncio.subprocess.Process
    shown: bytes = b""
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def resize(self, columns: int, rows: int) -> None:
        """Change its size; the program is told."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.fd, keys.encode())

    async def shows(self, text: str) -> None:
        """Wait until this is on the screen, behind what was waited for before."""
        await self.until(text.encode())
        self.shown = self.shown.partition(text.encode())[2]

    async def until(self, text: bytes) -> None:
        """The same, and `shown` keeps all of it."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while text not in self.shown:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"the terminal never showed {text!r}: {self.shown!r}") from None

    async def ends(self) -> int:
        """Wait for the program; its exit status."""
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()

    def modes(self) -> list[object]:
        """The settings of the terminal."""
        return termios.tcgetattr(self.theirs)

    def read(self) -> None:
        """Take what is there."""
        try:
            self.shown += os.read(self.fd, _CHUNK)
        except OSError:
            asyncio.get_running_loop().remove_reader(self.fd)
        self._more.set()


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@asynccontextmanager
async def terminal(
    *command: str, environment: Mapping[str, str], columns: int = 80, rows: int = 24
) -> AsyncIterator[Terminal]:
    """Run a program in a terminal of its own."""
    fd, theirs = os.openpty()
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"TERM": "xterm", **environment},
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    it = Terminal(fd, theirs, process)
    asyncio.get_running_loop().add_reader(fd, it.read)
    try:
        yield it
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(fd)
        os.close(theirs)
