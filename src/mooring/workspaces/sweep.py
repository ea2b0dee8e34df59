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
    """Ends the members: TERM, a hang-up for shells, which ignore that, then KILL. Call `step` until it says 0."""

    def __init__(self, folders: Sequence[str], marker: Sequence[str], grace_s: float) -> None:
        self._folders = folders
        self._marker = marker
        self._grace_s = grace_s
        self._told: dict[int, signal.Signals] = {}

    def step(self, elapsed_s: float) -> int:
        """One round, `elapsed_s` after the first; the number of processes that were still there."""
        if elapsed_s >= self._grace_s:
            membership.forbid_forks(self._folders)
            membership.kill(self._folders)
        found = members(self._folders, self._marker)
        for entry in found:
            number = self._signal_at(elapsed_s, entry)
            if number is signal.SIGKILL or self._told.get(entry.pid) is not number:
                self._told[entry.pid] = number
                _send(entry, number)
        return len(found)

    def _signal_at(self, elapsed_s: float, entry: procfs.Process) -> signal.Signals:
        if elapsed_s >= self._grace_s:
            return signal.SIGKILL
        # Only to shells: an editor that still saves would die of it.
        return signal.SIGHUP if elapsed_s >= HANGUP_AFTER_S and entry.has_terminal else signal.SIGTERM


def members(folders: Sequence[str], marker: Sequence[str]) -> list[procfs.Process]:
    """The workspace's processes except this one."""
    table = procfs.processes()
    roots = membership.pids(folders)
    roots.update(pid for pid in table if procfs.has_environment(pid, marker))
    found = procfs.descendants(table, {os.getpid(), *roots}) | roots
    return [table[pid] for pid in found if pid in table and pid != os.getpid()]


def end_session(session: int) -> None:
    """Kill what is left of a dead editor's own session: its helpers would hold its socket. Terminals have their own."""
    for entry in procfs.processes().values():
        if entry.session == session:
            _send(entry, signal.SIGKILL)


def _send(entry: procfs.Process, number: signal.Signals) -> None:
    pidfd = procfs.open_checked(entry.pid, entry.start)
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
