"""Finds and ends every process of one workspace, also those that left its session or lost their keeper.

A process belongs to the workspace when it is in its cgroup, when it descends from the keeper (a subreaper: orphans
come back to it), when it was started with the workspace's marker in its environment, or when it descends from one of
these. Imported by the keeper: no typing, no dataclasses.
"""

import os
import signal
from collections.abc import Sequence

from mooring.workspaces import membership, procfs

HANGUP_AFTER_S = 1.0
GIVE_UP_AFTER_S = 10.0


class Sweep:
    """Ends the members step by step: TERM, hang-up for shells that ignore it, KILL. Call `step` until it says 0."""

    def __init__(self, folders: Sequence[str], marker: Sequence[str], grace_s: float) -> None:
        self._folders = folders
        self._marker = marker
        self._grace_s = grace_s
        self._told: dict[int, signal.Signals] = {}

    def step(self, elapsed_s: float) -> int:
        """One round, `elapsed_s` after the first; the number of processes that were still there."""
        number = self._signal_at(elapsed_s)
        if number is signal.SIGKILL:
            membership.forbid_forks(self._folders)
            membership.kill(self._folders)
        found = members(self._folders, self._marker)
        for pid, start in found.items():
            if number is signal.SIGKILL or self._told.get(pid) is not number:
                self._told[pid] = number
                _send(pid, start, number)
        return len(found)

    def _signal_at(self, elapsed_s: float) -> signal.Signals:
        if elapsed_s >= self._grace_s:
            return signal.SIGKILL
        return signal.SIGHUP if elapsed_s >= HANGUP_AFTER_S else signal.SIGTERM


def members(folders: Sequence[str], marker: Sequence[str]) -> dict[int, int]:
    """The workspace's processes except this one: pid to start time."""
    table = procfs.processes()
    roots = membership.pids(folders)
    roots.update(pid for pid in table if procfs.has_environment(pid, marker))
    found = procfs.descendants(table, {os.getpid(), *roots}) | roots
    return {pid: table[pid].start for pid in found if pid in table and pid != os.getpid()}


def end_session(session: int) -> None:
    """Kill what is left of a dead editor's own session: its helpers would hold its socket. Terminals have their own."""
    for entry in procfs.processes().values():
        if entry.session == session:
            _send(entry.pid, entry.start, signal.SIGKILL)


def _send(pid: int, start: int, number: signal.Signals) -> None:
    pidfd = procfs.open_checked(pid, start)
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
        if number is not signal.SIGKILL:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)  # a stopped process cannot obey
    except OSError:
        return  # it ended by itself, or it became another user's: not ours to end
    finally:
        os.close(pidfd)
