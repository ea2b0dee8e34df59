"""The keeper: a small program, one for each workspace, that outlives the server and answers for the editor.

It leads the editor's life (`lifecycle.py`), runs commands inside the workspace, and tells whoever connects. It is a
subreaper, so that no process of the workspace can leave by forking twice. It inherits its listening socket as
descriptor 0 and the lock that makes it the only keeper as descriptor 3, and gets its order over the socket.
Runs under `python -I -S`: the standard library and this package's modules without third parties, nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
from contextlib import suppress

from mooring.workspaces.processes.keeper.lifecycle import Life
from mooring.workspaces.processes.keeper.order import Order
from mooring.workspaces.processes.keeper.poller import Poller
from mooring.workspaces.processes.keeper.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LISTENER = 0
LOCK = 3
_ORDER_WITHIN_S = 30.0
_MAX_MESSAGE = 8 * 2**20
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


class Client:
    """One connection of a server."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []
        self._text = b""
        connection.setblocking(False)  # noqa: FBT003 - a method of the standard library

    def read(self) -> list[dict[str, Any]] | None:
        """The messages that are complete now, None at the end."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.connection, 65536, 3)
        except BlockingIOError:
            return []
        except OSError:
            return None
        for descriptor in descriptors:
            # A command's background process that kept a copy would hold its output open for ever.
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - a function of the standard library
        self.descriptors += descriptors
        self._text += data
        if not data or len(self._text) > _MAX_MESSAGE:
            return None
        *lines, self._text = self._text.split(b"\n")
        try:
            return [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            return None

    def send(self, message: dict[str, Any]) -> bool:
        """False when the other end is gone or does not read: it connects again and hears the state anew."""
        data = json.dumps(message).encode() + b"\n"
        try:
            return self.connection.send(data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection, and what it sent that nobody took."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.connection.close()


class Keeper:
    """Serves connections and hands what they ask to the life it leads."""

    def __init__(self, listener: socket.socket) -> None:
        self._poller = Poller()
        self._listener = listener
        self._clients: dict[int, Client] = {}
        self._commands: dict[int, tuple[int, str]] = {}
        self._life: Life | None = None

    def run(self) -> None:
        """Until the life has ended."""
        wake, self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self._poller.watch(wake, lambda: self._signalled(wake))
        self._listener.setblocking(False)  # noqa: FBT003 - a method of the standard library
        self._poller.watch(self._listener.fileno(), self._accept)
        self._poller.after(_ORDER_WITHIN_S, self._require_order)
        self._poller.run()

    def _require_order(self) -> None:
        if self._life is None:
            self._poller.stop()  # the server died before it gave the order

    def _signalled(self, wake: int) -> None:
        numbers = os.read(wake, 4096)
        if signal.SIGTERM in numbers:
            self._stop()
        if signal.SIGCHLD in numbers:
            self._reap()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, raw = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                code = os.waitstatus_to_exitcode(raw)
                self._ended(pid, code if code >= 0 else 128 - code)

    def _ended(self, pid: int, status: int) -> None:
        if pid in self._commands:
            descriptor, key = self._commands.pop(pid)
            self._send(descriptor, {"exit": key, "status": status})
        elif self._life is not None:
            self._life.reaped(pid, status)

    # Connections

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            descriptor = connection.fileno()
            self._clients[descriptor] = Client(connection)
            self._poller.watch(descriptor, lambda: self._readable(descriptor))
            if self._life is not None:
                self._send(descriptor, {"state": self._life.state})

    def _readable(self, descriptor: int) -> None:
        messages = self._clients[descriptor].read()
        if messages is None:
            self._disconnect(descriptor)
            return
        for message in messages:
            try:
                self._obey(descriptor, message)
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
                # Any program of the workspace's user may connect: what it says must not end the keeper.
                self._disconnect(descriptor)
                return

    def _disconnect(self, descriptor: int) -> None:
        self._poller.forget(descriptor)
        if (client := self._clients.pop(descriptor, None)) is not None:
            client.close()
        if self._life is None:
            self._poller.stop()  # whoever would have given the order is gone
        # Its commands run on and end with the workspace, but a new connection may get the same descriptor.
        self._commands = {
            pid: (-1 if owner == descriptor else owner, key) for pid, (owner, key) in self._commands.items()
        }

    def _send(self, descriptor: int, message: dict[str, Any]) -> None:
        client = self._clients.get(descriptor)
        if client is not None and not client.send(message):
            self._disconnect(descriptor)

    def _publish(self) -> None:
        if self._life is not None:
            for descriptor in list(self._clients):
                self._send(descriptor, {"state": self._life.state})

    # What is asked

    def _obey(self, descriptor: int, message: dict[str, Any]) -> None:
        match message["op"]:
            case "keep" | "sweep" if self._life is None:
                self._begin(message["op"], Order(message["order"]))
            case "stop":
                self._stop()
            case "exec" if self._life is not None:
                self._exec(descriptor, message, self._life)
            case "signal":
                self._signal(message["key"], message["signal"])

    def _begin(self, kind: str, order: Order) -> None:
        if order.user is not None:
            _become(*order.user)
        self._life = Life(order, self._poller, self._publish)
        if kind == "keep":
            self._life.begin()
        else:
            self._life.sweep()

    def _stop(self) -> None:
        if self._life is None:
            self._poller.stop()
        else:
            self._life.stop()

    def _exec(self, descriptor: int, message: dict[str, Any], life: Life) -> None:
        client = self._clients[descriptor]
        taken, client.descriptors = client.descriptors[:3], client.descriptors[3:]
        key = message["key"]
        try:
            program = life.program(message["argv"], message["environment"])
            pid = spawn(program, (taken[0], taken[1], taken[2]), tty=message["tty"])
            self._commands[pid] = (descriptor, key)
            self._send(descriptor, {"exec": key, "pid": pid})
        except OSError as error:
            self._send(descriptor, {"exec": key, "error": error.strerror})
        finally:
            for number in taken:
                os.close(number)

    def _signal(self, key: str, number: int) -> None:
        for pid, (_, known) in self._commands.items():
            if known == key:
                with suppress(OSError):  # it just ended, or there is no such signal
                    os.killpg(pid, number)  # ours and not reaped yet: the pid cannot be another's


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # A change of user makes a process's own /proc files root's: its children could not be told apart.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def main() -> None:
    """Keep one workspace until its end."""
    os.set_inheritable(LOCK, False)  # noqa: FBT003 - an editor that held the lock would keep every later keeper out
    os.set_inheritable(LISTENER, False)  # noqa: FBT003 - the same
    os.umask(0o077)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    keeper = Keeper(socket.socket(fileno=LISTENER))
    keeper.run()
    # The kernel closes in the order of the numbers: whoever sees the connection end finds the lock free.
    os._exit(0)
