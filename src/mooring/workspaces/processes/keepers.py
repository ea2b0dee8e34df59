"""The server's end of a keeper: start one, connect to one that runs, talk to it, learn of its end."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import mooring
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, Unavailable
from mooring.workspaces.processes import procfs
from mooring.workspaces.processes.keeper import program
from mooring.workspaces.processes.keeper.lifecycle import FINAL

STATE_FILE = "state.json"
ANSWER_WITHIN_S = 10.0
_LOCK_FILE = "keeper.lock"
_SOCKET = "keeper.sock"
_LOG = "keeper.log"
_SOURCES = str(Path(mooring.__file__).parents[1])
_PROGRAM = f"import sys; sys.path.append(sys.argv[1]); from {program.__name__} import main; main()"

_KEYS = {
    *("id", "boot", "keeper", "editor", "phase", "reason", "left", "restarts", "crashes", "generation"),
    *("socket", "port", "folders", "limited", "unlimited"),
}

State = dict[str, Any]


def saved_state(place: Path) -> State | None:
    """What the last keeper wrote, None when there was none. One that cannot be read counts as none."""
    try:
        state = json.loads((place / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return state if _is_state(state) else None


def _is_state(told: object) -> bool:
    return isinstance(told, dict) and told.keys() >= _KEYS


def is_kept(place: Path) -> bool:
    """Whether a keeper lives: it holds the lock until the kernel closes its descriptors."""
    try:
        lock = os.open(place / _LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def start_keeper(place: Path, workspace_id: str, owner: tuple[int, int] | None) -> int:
    """Start a keeper that waits for its order at the socket in `place`; its pid. Blocks for some milliseconds.

    The lock is taken before anything is touched and passed on, so two keepers of one workspace cannot be.

    Raises:
        Conflict: when there is a keeper.
        OSError: a full disk, a read-only file system.
    """
    lock = os.open(place / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with _listener(place / _SOCKET, owner) as listener:
            return _spawn(place, workspace_id, listener.fileno(), lock)
    except BlockingIOError as error:
        raise Conflict(f"workspace {workspace_id} has a keeper") from error
    finally:
        os.close(lock)


def _listener(path: Path, owner: tuple[int, int] | None) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    if owner is not None:
        os.chown(path, *owner)
    return listener


def _spawn(place: Path, workspace_id: str, listener: int, lock: int) -> int:
    log = os.open(place / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _PROGRAM, _SOURCES, workspace_id],
            {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "MOORING_KEEPER": workspace_id},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, listener, program.LISTENER),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, lock, program.LOCK),
            ],
            setsid=True,
        )
    finally:
        os.close(log)


def kill_keeper(state: State) -> None:
    """Kill a keeper that does not answer, if the process that the state names is still it."""
    pidfd = procfs.open_checked(*state["keeper"]) if state["boot"] == procfs.boot_id() else None
    if pidfd is not None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def left_editor(state: State, marker: Sequence[str]) -> bool:
    """Whether the editor that a killed keeper left still runs: boot, pid, start time, marker and cgroup all agree."""
    if state["boot"] != procfs.boot_id() or state["editor"] is None:
        return False
    pid, start = state["editor"]
    pidfd = procfs.open_checked(pid, start)
    if pidfd is None:
        return False
    os.close(pidfd)
    return procfs.has_environment(pid, marker) and procfs.in_cgroup(pid, state["folders"])


class Link:
    """A connection to one keeper. `state` is the last one heard; `changed` is called at each, `lost` at the end."""

    def __init__(self, workspace_id: str, place: Path, connection: socket.socket) -> None:
        self.id = workspace_id
        self._place = place
        self.state: State = {}
        self.ended = asyncio.Event()
        self._connection = connection
        self._heard = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._keys = 0
        self._sending = asyncio.Lock()
        self._end_by: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the keeper said that it is done."""
        return self.state.get("phase") in FINAL

    @classmethod
    async def connect(cls, place: Path, workspace_id: str) -> "Link":
        """Raises OSError when nobody listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.setblocking(False)  # noqa: FBT003 - a method of the standard library
        try:
            await asyncio.get_running_loop().sock_connect(connection, str(place / _SOCKET))
        except BaseException:
            connection.close()
            raise
        return cls(workspace_id, place, connection)

    def follow(self, tasks: Tasks, changed: Callable[["Link"], None], lost: Callable[["Link"], None]) -> None:
        """Hear the keeper in a task of `tasks`."""
        _ = tasks.spawn(f"keeper/{self.id}", self._follow(changed, lost))

    async def heard(self, within_s: float = ANSWER_WITHIN_S) -> State:
        """The state, once the keeper has told one.

        Raises:
            Unavailable: when it does not within some seconds, or ended before.
        """
        try:
            await asyncio.wait_for(self._heard.wait(), within_s)
        except TimeoutError as error:
            raise Unavailable(f"the keeper of workspace {self.id} does not answer") from error
        if not self.state:
            raise Unavailable(f"the keeper of workspace {self.id} ended at its start: {_last_line(self._place / _LOG)}")
        return self.state

    async def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises Unavailable when the keeper is gone."""
        data = json.dumps(message).encode() + b"\n"
        loop = asyncio.get_running_loop()
        async with self._sending:
            try:
                sent = socket.send_fds(self._connection, [data[:1024]], list(descriptors)) if descriptors else 0
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await loop.sock_sendall(self._connection, data[sent:])
            except (OSError, TimeoutError) as error:
                raise Unavailable(f"the keeper of workspace {self.id} is gone") from error

    async def end(self, within_s: float) -> None:
        """Tell the keeper to stop, and wait for its end.

        Raises:
            Unavailable: when it is gone.
            TimeoutError: see `over`.
        """
        await self.send({"op": "stop"})
        await self.over(within_s)

    async def over(self, within_s: float) -> None:
        """Wait for the end of a keeper that was told to stop, or said that it is done.

        Raises:
            TimeoutError: it has not ended `within_s` seconds after it was first waited for.
        """
        # Cut off and asked again, a stop would give one that hangs all its time again, and Mooring's end come first.
        self._end_by = self._end_by or asyncio.get_running_loop().time() + within_s
        async with asyncio.timeout_at(self._end_by):
            await self.ended.wait()

    async def execute(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> tuple[str, asyncio.Future[Any]]:
        """Run a command inside: its key, and the future of its exit message.

        Raises:
            Unavailable: when the keeper is gone.
            Conflict: when the command cannot be started; says why.
        """
        self._keys += 1
        key = str(self._keys)
        started = self._expect(f"exec/{key}")
        exited = self._expect(f"exit/{key}")
        await self.send({**message, "op": "exec", "key": key}, descriptors)
        try:
            answer = await asyncio.wait_for(started, ANSWER_WITHIN_S)
        except TimeoutError as error:
            raise Unavailable(f"the keeper of workspace {self.id} does not answer") from error
        if "error" in answer:
            self._waiting.pop(f"exit/{key}", None)
            raise Conflict(str(answer["error"]))
        return key, exited

    def close(self) -> None:
        """Let go of the keeper; it goes on. The task that hears it ends by itself."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _expect(self, name: str) -> asyncio.Future[Mapping[str, Any]]:
        future: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        return future

    async def _follow(self, changed: Callable[["Link"], None], lost: Callable[["Link"], None]) -> None:
        text = b""
        try:
            while data := await self._receive():
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line), changed)
        finally:
            self._over()
        lost(self)

    async def _receive(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._connection, 65536)
        except OSError:
            return b""

    def _take(self, message: Mapping[str, Any], changed: Callable[["Link"], None]) -> None:
        if "state" in message:
            # A stop that fails at what is no keeper's state would kill nobody, this time and each next.
            if _is_state(message["state"]):
                self.state = message["state"]
                self._heard.set()
                changed(self)
            return
        kind = "exec" if "exec" in message else "exit"
        future = self._waiting.pop(f"{kind}/{message[kind]}", None)
        if future is not None and not future.done():
            future.set_result(message)

    def _over(self) -> None:
        self._connection.close()
        self._heard.set()
        self.ended.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_result({"error": "the keeper is gone", "status": 255})
        self._waiting.clear()


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return "it said nothing"
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def reap(children: set[int]) -> None:
    """Take the exit statuses of those of our keepers that are gone, so that no zombie is left."""
    for pid in tuple(children):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            children.discard(pid)
