# ruff: noqa: PTH105, PTH108, PTH110, PTH123 - pathlib would cost each keeper a megabyte
"""The life of one workspace's editor, as its keeper leads it: start, crash, backoff, giving up, stop.

The keeper restarts the editor, not the server: a server that is dead or being replaced must not matter to a person at
work. What happened is in the state file, so a server that comes back knows exit statuses that it never waited for.
Imported by the keeper: no typing, no dataclasses at run time.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import suppress

from mooring.workspaces.crashes import judged
from mooring.workspaces.output import Log, end_of, last_lines, written_since
from mooring.workspaces.processes import membership, procfs
from mooring.workspaces.processes.keeper.spawn import Program, spawn
from mooring.workspaces.processes.keeper.sweep import GIVE_UP_AFTER_S, Sweep, end_session
from mooring.workspaces.steps import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mooring.workspaces.processes.keeper.order import Order
    from mooring.workspaces.processes.keeper.poller import Poller

ROUND_S = 0.05
SIGNALLED = 128
_SIGNALS = {SIGNALLED + number: number.name for number in signal.Signals}
FIFO_BYTES = 256 * 1024
FINAL = ("stopped", "failed")


class Life:
    """One start (generation) of a workspace. `publish` hears of each change of `state`."""

    def __init__(self, order: Order, poller: Poller, publish: Callable[[], None]) -> None:
        self._order = order
        self._poller = poller
        self._publish = publish
        self._log = Log(order.log)
        self._fifo = _open_fifo(order.fifo)
        self._editor = 0
        self._adopted = -1
        self._steps: dict[int, tuple[str, int]] = {}
        self._memory_kills = membership.memory_kills(order.folders)
        self._ending: tuple[str, str] | None = None
        self._unsaved = False
        self._retrying = False
        self.state: dict[str, Any] = {
            "id": order.id,
            "boot": procfs.boot_id(),
            "keeper": _identity(os.getpid()),
            "editor": None,
            "phase": "starting",
            "reason": "",
            "notices": order.notices,
            "waits": "",
            "exit": None,
            "left": 0,
            "restarts": order.restarts,
            "crashes": order.crashes,
            "generation": order.generation,
            "socket": order.socket,
            "port": order.port,
            "folders": order.folders,
            "limited": order.limited,
            "unlimited": order.unlimited,
        }

    def begin(self) -> None:
        """Take over the editor that the order names, else start one; the steps of the first start run beside it."""
        self._poller.watch(self._fifo, self._copy_output)
        self._watch_memory()
        if not self._adopt():
            # The steps that went wrong before are done again, and may succeed.
            self.state["notices"] = []
            self._start_editor()
            for name, argv in self._order.steps:
                self._start_step(name, argv)
        self._changed()

    def sweep(self) -> None:
        """End what is left of a workspace whose keeper is gone."""
        self._poller.watch(self._fifo, self._copy_output)
        self.stop()

    def stop(self) -> None:
        """End every process, then this life; `state` is stopped."""
        self._end("stopped", "")

    def program(self, argv: list[str], environment: dict[str, str]) -> Program:
        """A program inside the workspace."""
        order = self._order
        return Program(argv, {**order.environment, **environment}, order.cwd, order.folders)

    def reaped(self, pid: int, status: int) -> None:
        """A child ended, with its exit status (128 + signal when killed)."""
        if pid in self._steps:
            self._step_ended(*self._steps.pop(pid), status)
        elif pid == self._editor:
            self._editor_ended(status)

    def note(self, text: str) -> None:
        """Say something in the workspace's output."""
        self._log.append(f"[mooring] {text}\n".encode())
        self._retry_output()

    # The editor

    def _start_editor(self) -> None:
        if self._ending is not None:
            return
        try:
            if self._order.socket and os.path.exists(self._order.socket):
                # The one before was killed and left its socket: the name is taken, and nobody answers.
                os.unlink(self._order.socket)
            self._editor = self._spawn(self._order.argv)
        except OSError as error:
            self._end("failed", str(error.strerror))
            return
        self.state.update(editor=_identity(self._editor), reason="")
        self.note(f"the editor started, process {self._editor}")
        self._changed()

    def _adopt(self) -> bool:
        if self._order.adopt is None:
            return False
        pid, start = self._order.adopt
        pidfd = procfs.open_checked(pid, start)
        if pidfd is None:
            return False
        self._editor, self._adopted = pid, pidfd
        self.state["editor"] = [pid, start]
        # Not our child: the kernel tells us the end of it, and nobody the exit status.
        self._poller.watch(pidfd, lambda: self._editor_ended(None))
        self.note(f"a new keeper took over the editor, process {pid}")
        return True

    def _editor_ended(self, status: int | None) -> None:
        self._drop_adopted()
        ended, self._editor = self._editor, 0
        self.state.update(editor=None, exit=status)
        if self._ending is not None:
            return
        what = self._how(status)
        self.note(f"the editor {what}")
        end_session(ended)
        self.state["crashes"], delay, reason = judged(self.state["crashes"], time.time(), what)
        if delay is None:
            self._copy_output()
            self._end("failed", f"{reason}\n{last_lines(self._order.log)}")
            return
        self.state.update(restarts=self.state["restarts"] + 1, reason=reason)
        self._poller.after(delay, self._start_editor)
        self._changed()

    def _drop_adopted(self) -> None:
        if self._adopted >= 0:
            self._poller.forget(self._adopted)
            os.close(self._adopted)
            self._adopted = -1

    def _how(self, status: int | None) -> str:
        if status is None:
            return "ended, with a status that nobody saw"
        if status == SIGNALLED + signal.SIGKILL and membership.memory_kills(self._order.folders) > self._memory_kills:
            return f"was killed because the workspace's memory limit of {self._order.memory} was reached"
        # A program may end with such a number by itself: 255 is what -1 becomes.
        name = _SIGNALS.get(status)
        return f"was killed by {name}" if name else f"ended with exit status {status}"

    # The steps of the first start

    def _start_step(self, name: str, argv: list[str]) -> None:
        self.note(f"{name} started")
        try:
            self._steps[self._spawn(argv)] = (name, end_of(self._order.log))
        except OSError as error:
            self._notice(f"{name} failed: {error.strerror}")

    def _step_ended(self, name: str, since: int, status: int) -> None:
        if self._ending is not None:
            return
        if status == 0:
            self.note(f"{name} is done")
        else:
            self._copy_output()
            self._notice(failure(name, status, written_since(self._order.log, since)))

    def _notice(self, text: str) -> None:
        # Last words below it are in the output already.
        self.note(text.partition("\n")[0])
        if text not in self.state["notices"]:
            self.state["notices"].append(text)
            self._changed()

    def _spawn(self, argv: list[str]) -> int:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # A descriptor of its own, open for both ends: see output.py.
        pipe = os.open(self._order.fifo, os.O_RDWR | os.O_CLOEXEC)
        try:
            return spawn(self.program(argv, {}), (null, pipe, pipe))
        finally:
            os.close(null)
            os.close(pipe)

    # The end

    def _end(self, phase: str, reason: str) -> None:
        if self._ending is not None:
            return
        self._ending = (phase, reason)
        self.state.update(phase="stopping", reason=reason)
        self._changed()
        self.note("stopping" if phase == "stopped" else reason.partition("\n")[0])
        grace = self._order.grace_s if phase == "stopped" else 1.0
        marker = self._order.marker if self._order.orphans else []
        rounds = Sweep(self._order.folders, marker, grace)
        self._round(rounds, time.monotonic(), grace + GIVE_UP_AFTER_S)

    def _round(self, rounds: Sweep, since: float, limit: float) -> None:
        elapsed = time.monotonic() - since
        left = rounds.step(elapsed)
        if left and elapsed < limit:
            self._poller.after(ROUND_S, lambda: self._round(rounds, since, limit))
            return
        if left:
            self._ending = ("failed", f"{left} processes do not end, not even when killed")
        self.state["left"] = left
        self._finish()

    def _finish(self) -> None:
        phase, reason = self._ending or ("stopped", "")
        self._copy_output()
        self._log.append(f"[mooring] {phase}\n".encode())
        for path in (self._order.socket, self._order.fifo):
            if path:
                with suppress(OSError):
                    os.unlink(path)
        self.state.update(phase=phase, reason=reason, editor=None)
        self._changed()
        self._poller.stop()

    # Output, memory, state

    def _copy_output(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(16):  # then the others' turn, however much is written
                self._log.take(self._fifo)
        self._retry_output()

    def _retry_output(self) -> None:
        if self._log.waiting and self.state["waits"] != (text := f"output waits: {self._log.error}"):
            self.state["waits"] = text
            self._changed()
        if self._log.waiting and not self._retrying:
            self._retrying = True
            self._poller.after(1.0, self._flush)

    def _flush(self) -> None:
        self._retrying = False
        self._log.flush()
        self._retry_output()
        if not self._log.waiting and self.state["waits"]:
            self.state["waits"] = ""
            self._changed()

    def _watch_memory(self) -> None:
        alarm = membership.memory_alarm(self._order.folders)
        if alarm is not None:
            descriptor, event = alarm
            self._poller.watch(descriptor, lambda: self._memory_ran_out(descriptor), event)

    def _memory_ran_out(self, descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.read(descriptor, 4096)
        # The word of it comes before the kill is counted.
        self._poller.after(0.2, self._count_memory_kills)

    def _count_memory_kills(self) -> None:
        kills = membership.memory_kills(self._order.folders)
        if kills > self._memory_kills and self._ending is None:
            self._memory_kills = kills
            self._notice(f"the memory limit of {self._order.memory} was reached: a process was killed")

    def _changed(self) -> None:
        self._save()
        self._publish()

    def _save(self) -> None:
        path = self._order.state
        self._unsaved = False
        try:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump(self.state, file)
            os.replace(f"{path}.new", path)
        except OSError:
            # A full disk: whoever connects still hears the state from memory.
            self._unsaved = True
            self._poller.after(1.0, self._save_again)

    def _save_again(self) -> None:
        if self._unsaved:
            self._save()


def _open_fifo(path: str) -> int:
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with suppress(OSError):  # the user's sum of pipes is limited
        # What an editor can write while it has no keeper, before it must wait for the next one.
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, FIFO_BYTES)
    return fifo


def _identity(pid: int) -> list[int]:
    entry = procfs.process(pid)
    return [pid, entry.start if entry else 0]
