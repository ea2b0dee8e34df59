"""A command that runs inside a container, over the engine's hijacked connection.

The engine has no call that ends such a command, and closing the connection does not. So each carries a random mark in
its environment, and whoever carries it is signalled from inside.
"""

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Mapping, Sequence

from aiodocker.execs import Exec

from mooring.errors import Conflict, NotFound, Unavailable
from mooring.workspaces.docker.container import HOME, USER
from mooring.workspaces.docker.engine import DockerEngine, asking
from mooring.workspaces.ports import Channel

_HEADER = struct.Struct(">BxxxL")
_CHUNK = 65536
_STDERR = 2
_KILLED = 137
_POLL_S = (0.02, 0.5)
_KILL_AFTER_S = 2.0
_MARK = "MOORING_EXEC"
_SIGNAL = f"""
for file in $(grep -lszx -- "{_MARK}=$1" /proc/[0-9]*/environ); do
  pid=${{file#/proc/}}
  kill -"$2" "${{pid%/environ}}" 2>/dev/null
done
"""
# The output of the first process is what the engine keeps as the container's log.
_INTO_LOG = 'mkdir -p -- "$1"; shift; exec "$@" </dev/null >/proc/1/fd/1 2>&1'


class DockerSession:
    """An `ExecSession`."""

    def __init__(self, engine: DockerEngine, container: str, run: Exec, mark: str, *, tty: bool) -> None:
        self._engine = engine
        self._container = container
        self._exec = run
        self._mark = mark
        self._tty = tty
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(
        cls, engine: DockerEngine, container: str, command: Sequence[str], environment: Mapping[str, str], *, tty: bool
    ) -> "DockerSession":
        """Raises `Conflict` when the container does not run."""
        mark = secrets.token_hex(8)
        try:
            async with asking("a command in the workspace"):
                run = await engine.container(container).exec(
                    list(command),
                    stdin=True,
                    tty=tty,
                    user=USER,
                    environment={**environment, _MARK: mark},
                    workdir=HOME,
                )
        except NotFound as error:
            raise Conflict("the workspace does not run", field="phase") from error
        session = cls(engine, container, run, mark, tty=tty)
        session._reader, session._writer = await engine.hijack(f"exec/{run.id}/start", {"Detach": False, "Tty": tty})
        return session

    async def write(self, data: bytes) -> None:
        try:
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self._tty:
                self._writer.write(b"\x04")  # a terminal's end of input is a character
            elif self._writer.can_write_eof():
                self._writer.write_eof()
        except ConnectionError:
            return  # it does not read any more; its exit status says the rest

    async def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        try:
            async for item in self._raw() if self._tty else self._framed():
                yield item
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the container or the engine was ended in between
        self.hang_up()

    async def _raw(self) -> AsyncIterator[tuple[Channel, bytes]]:
        while data := await self._reader.read(_CHUNK):
            yield Channel.stdout, data

    async def _framed(self) -> AsyncIterator[tuple[Channel, bytes]]:
        while True:
            stream, left = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            while left and (data := await self._reader.read(min(left, _CHUNK))):
                left -= len(data)
                yield Channel.stderr if stream == _STDERR else Channel.stdout, data

    async def resize(self, columns: int, rows: int) -> None:
        if self._tty:
            async with asking("the size of a terminal"):
                await self._exec.resize(h=rows, w=columns)

    async def wait(self) -> int:
        delay, most = _POLL_S
        while (status := await self._status()) is None:
            await asyncio.sleep(delay)
            delay = min(most, delay * 1.5)
        return status

    async def close(self) -> None:
        try:
            for name in ("HUP", "KILL"):
                if await self._status() is not None:
                    return
                await self._signal(name)
                try:
                    async with asyncio.timeout(_KILL_AFTER_S):
                        await self.wait()
                except TimeoutError:
                    continue
        except Unavailable:
            return  # the engine is gone, and its containers with it
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """Let go of the connection; the command goes on."""
        self._writer.close()

    async def _status(self) -> int | None:
        try:
            async with asking("the status of a command"):
                state = await self._exec.inspect()
        except NotFound:
            return _KILLED  # with its container
        return None if state["Running"] or state["ExitCode"] is None else int(state["ExitCode"])

    async def _signal(self, name: str) -> None:
        try:
            await captured(self._engine, self._container, ["sh", "-c", _SIGNAL, "signal", self._mark, name])
        except Conflict:
            return  # the container ended by itself


async def captured(engine: DockerEngine, container: str, command: Sequence[str]) -> bytes:
    """The standard output of a short command of Mooring's own."""
    session = await DockerSession.start(engine, container, command, {}, tty=False)
    async with asking(f"{command[0]} in the workspace"):
        await session.write(b"")
        said = [data async for channel, data in session.output() if channel is Channel.stdout]
    session.hang_up()
    return b"".join(said)


async def run_step(engine: DockerEngine, container: str, data: str, argv: Sequence[str]) -> int:
    """Run a step of the first start, its output in the log, and return its exit status; it needs the folder `data`."""
    session = await DockerSession.start(engine, container, ["sh", "-c", _INTO_LOG, "step", data, *argv], {}, tty=False)
    try:
        async for _ in session.output():
            pass
        return await session.wait()
    finally:
        session.hang_up()
