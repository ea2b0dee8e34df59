"""A runtime in memory whose commands are real: they run on this machine, in a home of their own."""

import asyncio
import fcntl
import os
import pwd
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from mooring.errors import Conflict
from mooring.workspaces.memory_runtime import MemoryRuntime
from mooring.workspaces.ports import Channel, ExecSession

_CHUNK = 65536


class LocalRuntime(MemoryRuntime):
    """Runs commands as `user` in `home`, which is not the home that the password file gives to that user."""

    def __init__(self, home: Path, user: str) -> None:
        super().__init__()
        self._home = home
        self._user = pwd.getpwnam(user)
        self.environment = {
            "PATH": f"{home}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "QUOTED": 'it\'s "one" $value',
        }

    async def exec(  # type: ignore[override]
        self, workspace_id: str, command: Sequence[str], *, environment: Mapping[str, str], tty: bool
    ) -> ExecSession:
        if not self._runs(workspace_id):
            raise Conflict("the workspace does not run", field="phase")
        pairs = [os.openpty()] * 3 if tty else [os.pipe()[::-1], os.pipe(), os.pipe()]
        theirs = [their for _our, their in pairs]
        if tty:
            os.fchown(theirs[0], self._user.pw_uid, self._user.pw_gid)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            cwd=self._home,
            env={**self.environment, **environment},
            user=self._user.pw_uid,
            group=self._user.pw_gid,
            extra_groups=[],
            start_new_session=True,
            preexec_fn=_own_terminal if tty else None,
        )
        for fd in set(theirs):
            os.close(fd)
        ours = [our for our, _their in pairs]
        return LocalSession(
            process, ours[0], {ours[1]: Channel.stdout} if tty else dict(zip(ours[1:], Channel, strict=True))
        )


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class LocalSession:
    """A process and our ends of its pipes, or of its terminal."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: int, outputs: dict[int, Channel]) -> None:
        self._process, self._stdin, self._outputs = process, stdin, outputs

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[await asyncio.to_thread(os.write, self._stdin, view) :]
        except OSError:
            return
        if not data and self._stdin not in self._outputs:
            self._end_input()

    async def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for fd in self._outputs:
            loop.add_reader(fd, lambda fd=fd: queue.put_nowait((fd, _read(fd))))  # type: ignore[misc]
        try:
            while self._outputs:
                fd, data = await queue.get()
                if data:
                    yield self._outputs[fd], data
                elif fd in self._outputs:
                    loop.remove_reader(fd)
                    self._drop(fd)
        finally:
            for fd in self._outputs:
                loop.remove_reader(fd)

    async def resize(self, columns: int, rows: int) -> None:
        for fd in self._outputs:
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        status = await self._process.wait()
        return 128 - status if status < 0 else status

    async def close(self) -> None:
        if self._process.returncode is None:
            for number in (signal.SIGHUP, signal.SIGKILL):
                os.killpg(self._process.pid, number)
                try:
                    await asyncio.wait_for(self._process.wait(), 2)
                    break
                except TimeoutError:
                    continue
        self._end_input()
        for fd in list(self._outputs):
            self._drop(fd)

    def _end_input(self) -> None:
        if self._stdin >= 0 and self._stdin not in self._outputs:
            os.close(self._stdin)
        self._stdin = -1

    def _drop(self, fd: int) -> None:
        del self._outputs[fd]
        os.close(fd)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""


def account() -> str:
    """The user that commands run as: never root, as in a real installation."""
    return "mooring" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
