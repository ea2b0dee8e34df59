"""Looks into a running workspace of the process runtime: what it uses, and whether a port is its own. Blocking.

Only when somebody asks: idle workspaces cost nothing. Where there is no cgroup, the processes are those that descend
from the keeper or the editor.
"""

import time
from collections.abc import Iterable
from threading import Lock

from mooring.workspaces.ports import Usage
from mooring.workspaces.processes import membership, procfs
from mooring.workspaces.processes.cgroups import counters
from mooring.workspaces.processes.keepers import State

_TABLE_FOR_S = 1.0


class Inspection:
    """Shares one reading of the process table among the questions of a second: 200 workspaces ask at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._table: dict[int, procfs.Process] = {}
        self._read_at = float("-inf")

    def usage(self, state: State) -> Usage:
        """CPU and memory from the cgroup where it counts them, else summed up from the processes."""
        members = self._members(state)
        counted = counters(tuple(state["folders"]))
        memory = counted.memory_bytes
        return Usage(
            cpu_s=_summed(state, members) if counted.cpu_s is None else counted.cpu_s,
            memory_bytes=sum(entry.resident for entry in members) if memory is None else memory,
            commands=frozenset(procfs.name_of(entry) for entry in members),
        )

    def owned_address(self, state: State, port: int) -> str | None:
        """The address at which a connection to `port` surely ends in a process of this workspace.

        A socket bound to the very address takes connections from one bound to every address, and several may share a
        port (SO_REUSEPORT): the workspace must own all that could answer.
        """
        found = procfs.listeners(port)
        if not found:
            return None
        own = {inode for entry in self._members(state, fresh=True) for inode in procfs.sockets(entry.pid)}
        for host in dict.fromkeys(host for host, _, _ in found):
            here = [(kind, inode) for known, kind, inode in found if known == host]
            answering = [inode for kind, inode in here if kind == "own"] or [inode for _, inode in here]
            if all(inode in own for inode in answering):
                return f"{host}:{port}"
        return None

    def _members(self, state: State, *, fresh: bool = False) -> list[procfs.Process]:
        if state["folders"]:
            return _read(membership.pids(state["folders"]))
        table = self._processes(0.0 if fresh else _TABLE_FOR_S)
        roots = {pid for pid, start in filter(None, (state["keeper"], state["editor"])) if _is(table, pid, start)}
        found = procfs.descendants(table, roots) | (roots - {state["keeper"][0]})
        return [table[pid] for pid in found]

    def _processes(self, old_s: float) -> dict[int, procfs.Process]:
        with self._lock:
            if time.monotonic() - self._read_at > old_s:
                self._table = procfs.processes()
                self._read_at = time.monotonic()
            return self._table


def _summed(state: State, members: list[procfs.Process]) -> float:
    """CPU seconds of the living, and with the keeper's those of the dead: it waits for each that is orphaned."""
    keeper = procfs.process(state["keeper"][0])
    kept = keeper.cpu_s if keeper is not None and keeper.start == state["keeper"][1] else 0.0
    return kept + sum(entry.cpu_s for entry in members)


def _is(table: dict[int, procfs.Process], pid: int, start: int) -> bool:
    return pid in table and table[pid].start == start


def _read(pids: Iterable[int]) -> list[procfs.Process]:
    return [entry for pid in pids if (entry := procfs.process(pid)) is not None and not entry.zombie]
