"""The output of containers, copied from the engine into the append-only files that every runtime has.

The engine keeps messages with a time stamp and forgets the oldest, so an offset into its log means nothing. A
follower per running container copies them into `output.Log` and keeps how far it came: the stamp of the last message
copied, how many had that stamp, and the offset behind it. A follower that comes back goes on there; what was appended
after that was kept is skipped by its length. So every byte is there once, whoever was killed in between.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
import orjson
import structlog

from mooring.control.backoff import Backoff
from mooring.control.tasks import Tasks
from mooring.errors import MooringError, NotFound
from mooring.settings import Home
from mooring.workspaces.docker.container import stamped
from mooring.workspaces.docker.engine import DockerEngine
from mooring.workspaces.output import Log, end_of

log = structlog.get_logger(__name__)

_HEADER = struct.Struct(">BxxxL")
_DRAIN_WITHIN_S = 5.0
_BACKOFF = Backoff(first=0.2, most=5.0)
_DISK_FULL_S = 1.0


@dataclass
class Position:
    """How far one container's log was copied. `end` is the offset in our files behind the last message of `stamp`."""

    container: str
    stamp: str = ""
    count: int = 0
    end: int = 0

    @property
    def since(self) -> str:
        """The engine's form of the stamp: seconds and nanoseconds since the epoch."""
        whole, _, fraction = self.stamp.removesuffix("Z").partition(".")
        return f"{int(datetime.fromisoformat(whole + '+00:00').timestamp())}.{fraction}"


class Copy:
    """Appends one container's messages, each once."""

    def __init__(self, folder: Path, container: str) -> None:
        self._folder = folder
        self._log = Log(str(folder))
        self.position = _load(folder, container)
        end = end_of(str(folder))
        # Appended by a follower that was killed before it kept its position: the same bytes come again.
        # Less is there than was kept, when somebody removed the files or a power cut took their end: that is gone.
        self._skip_bytes = max(0, end - self.position.end) if self.position.stamp else 0
        self._skip_messages = self.position.count
        self._resume = self.position.stamp

    def append(self, messages: list[bytes]) -> None:
        """Append what is new of `messages`, and keep the position. A full disk shows in `waiting`."""
        fresh = bytearray()
        for message in messages:
            stamp, text = stamped(message)
            if self._is_known(stamp):
                continue
            same = stamp == self.position.stamp
            self.position.stamp = stamp
            self.position.count = self.position.count + 1 if same else 1
            fresh += text
        known = min(self._skip_bytes, len(fresh))
        self._skip_bytes -= known
        self._log.append(bytes(fresh[known:]))
        self.keep()

    def keep(self) -> None:
        """Write what waits, and the position when nothing does."""
        self._log.flush()
        if self._log.waiting or not self.position.stamp or self._skip_bytes:
            return
        self.position.end = end_of(str(self._folder))
        try:
            _save(self._folder, self.position)
        except OSError as error:
            log.warning("the position in a container's log is not kept", folder=str(self._folder), error=str(error))

    @property
    def waiting(self) -> str:
        """Why something could not be written yet, empty when all was."""
        return self._log.error if self._log.waiting else ""

    def again(self) -> "Copy":
        """What goes on after a broken connection, exactly as after a kill."""
        self.close()
        return Copy(self._folder, self.position.container)

    def close(self) -> None:
        """Let go of the file."""
        self._log.close()

    def _is_known(self, stamp: str) -> bool:
        if not stamp or stamp != self._resume:
            return bool(stamp) and stamp < self._resume
        self._skip_messages -= 1
        return self._skip_messages >= 0


def _load(folder: Path, container: str) -> Position:
    try:
        kept = Position(**orjson.loads((folder / "position.json").read_bytes()))
    except (OSError, orjson.JSONDecodeError, TypeError):
        return Position(container)
    return kept if kept.container == container else Position(container)


def _save(folder: Path, position: Position) -> None:
    new = folder / "position.json.new"
    new.write_bytes(orjson.dumps(position))
    new.replace(folder / "position.json")


class Output:
    """The followers of one engine's containers."""

    def __init__(self, engine: DockerEngine, home: Home, tasks: Tasks) -> None:
        self._engine = engine
        self._home = home
        self._tasks = tasks
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._hurry: dict[str, asyncio.Event] = {}

    def folder(self, workspace_id: str) -> Path:
        """Where the output of a workspace is kept."""
        return self._home.workspace(workspace_id) / "log"

    def follow(self, workspace_id: str, container: str) -> None:
        """Have the container's output copied from where it was left. Nothing happens when it is being copied."""
        if workspace_id not in self._followers:
            self._hurry[workspace_id] = asyncio.Event()
            task = self._tasks.spawn(f"output of {workspace_id}", self._follow(workspace_id, container))
            self._followers[workspace_id] = task
            task.add_done_callback(lambda done: self._gone(workspace_id, done))

    async def drain(self, workspace_id: str) -> None:
        """Return when all that an ended container wrote was copied, or after five seconds."""
        if (task := self._followers.get(workspace_id)) is not None:
            # Whoever asks has just spoken to the engine: nobody's start waits for the rest of a pause.
            self._hurry[workspace_id].set()
            _, late = await asyncio.wait([task], timeout=_DRAIN_WITHIN_S)
            if late:
                task.cancel()
                await asyncio.wait([task])

    def _gone(self, workspace_id: str, task: asyncio.Task[None]) -> None:
        if self._followers.get(workspace_id) is task:
            del self._followers[workspace_id], self._hurry[workspace_id]

    async def _follow(self, workspace_id: str, container: str) -> None:
        hurry, failures = self._hurry[workspace_id], 0
        copy = await asyncio.to_thread(Copy, self.folder(workspace_id), container)
        try:
            while True:
                try:
                    await self._copy(copy, container)
                except NotFound:
                    return
                except MooringError as error:
                    if failures == 0:
                        log.warning("a container's output is not followed", workspace=workspace_id, error=error.detail)
                else:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BACKOFF.delay(failures)):
                        await hurry.wait()
                hurry.clear()
                failures += 1
                copy = await asyncio.to_thread(copy.again)
        finally:
            copy.close()

    async def _copy(self, copy: Copy, container: str) -> None:
        params = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1"}
        if copy.position.stamp:
            params["since"] = copy.position.since
        async with self._engine.stream(f"containers/{container}/logs", params) as body:
            async for messages in _messages(body):
                await asyncio.to_thread(copy.append, messages)
                while copy.waiting:
                    # Nothing more is taken from the engine, which keeps it meanwhile.
                    await asyncio.sleep(_DISK_FULL_S)
                    await asyncio.to_thread(copy.keep)


async def _messages(body: aiohttp.StreamReader) -> AsyncIterator[list[bytes]]:
    """The messages in the engine's framing (stream, three zeros, length), as many at a time as there are."""
    rest = b""
    while data := await body.readany():
        rest += data
        found, at = [], 0
        while at + _HEADER.size <= len(rest):
            length = _HEADER.unpack_from(rest, at)[1]
            if at + _HEADER.size + length > len(rest):
                break
            found.append(rest[at + _HEADER.size : at + _HEADER.size + length])
            at += _HEADER.size + length
        rest = rest[at:]
        if found:
            yield found
