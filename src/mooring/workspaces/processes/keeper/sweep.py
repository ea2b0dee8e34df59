"""Finds and ends every process of one workspace, also those that left its session or lost their keeper.

A process belongs to the workspace when it is in its cgroup, when it descends from the keeper (a subreaper: orphans
come back to it), when it was started with the workspace's marker in its environment, or when it descends from one of
these. Imported by the keeper: no typing, no dataclasses.
"""

import os
import signal
from collections.abc import Sequence

from mooring.workspaces.processes import membership, procfs

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
        # Asked twice before it is believed: a process that ends while we look hands its children to us unseen.
        found = members(self._folders, self._marker) or members(self._folders, self._marker)
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
    """The workspace's processes except this one. An empty `marker`: nothing of it can be elsewhere than below us.

    Only the marker needs a look at every process of the machine; 200 workspaces that end at once must not do that.
    """
    found = membership.pids(folders) | procfs.tree(os.getpid())
    if marker:
        table = procfs.processes()
        found.update(pid for pid in table if procfs.has_environment(pid, marker))
        found.update(procfs.descendants(table, found))
    entries = (procfs.process(pid) for pid in found - {os.getpid()})
    return [entry for entry in entries if entry is not None and not entry.zombie]


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
