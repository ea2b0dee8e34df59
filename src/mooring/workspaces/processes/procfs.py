# ruff: noqa: PTH110, PTH115, PTH123, PTH208 - pathlib would cost each keeper a megabyte
"""Reads /proc: who a process is, what descends from it, where it listens. Changes nothing but by a checked pidfd.

Also imported by the keeper, so it may import only what costs next to nothing: no typing, no dataclasses.
Source: proc(5), pidfd_open(2).
"""

import os
from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTEN = "0A"
_ANY_4, _ANY_6 = "00000000", "0" * 32
_LOOPBACK_4, _LOOPBACK_6 = "0100007F", "00000000000000000000000001000000"


class Process:
    """One line of the process table. `start` (clock ticks since boot) tells two users of one pid apart."""

    __slots__ = ("command", "cpu_s", "has_terminal", "parent", "pid", "resident", "session", "start", "zombie")

    def __init__(self, pid: int, text: str) -> None:
        """Parse /proc/<pid>/stat. The command may hold spaces and parentheses: only the last `)` ends it."""
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        self.pid = pid
        self.command = head.partition("(")[2]
        self.zombie = fields[0] in "ZX"
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.has_terminal = fields[4] != "0"
        self.cpu_s = sum(int(ticks) for ticks in fields[11:15]) / _TICKS
        self.start = int(fields[19])
        self.resident = int(fields[21]) * _PAGE


def boot_id() -> str:
    """Drawn at random at each boot: pids and start times are comparable only within one."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def process(pid: int) -> Process | None:
    """The process of that pid, None when there is none or another user's is hidden (`hidepid` in proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return Process(pid, file.read())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def processes() -> dict[int, Process]:
    """The process table, without zombies."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {entry.pid: entry for entry in found if entry is not None and not entry.zombie}


def descendants(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The pids below `roots`, without the roots."""
    children: dict[int, list[int]] = {}
    for entry in table.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found: set[int] = set()
    ahead = list(roots)
    while ahead:
        for child in children.get(ahead.pop(), ()):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found


def name_of(entry: Process) -> str:
    """The program's name as it was called: Node calls its main thread MainThread."""
    try:
        with open(f"/proc/{entry.pid}/cmdline", "rb") as file:
            called = file.read(4096).split(b"\0")[0].decode(errors="replace")
    except OSError:
        called = ""
    return called.rpartition("/")[2] or entry.command


def tree(root: int) -> set[int]:
    """The pids below `root`, which must be this process or live on; costs what is below it, not what the machine runs.

    Source: /proc/<pid>/task/<tid>/children in proc(5); kernels built without it are read whole.
    """
    if not os.path.exists(f"/proc/{root}/task/{root}/children"):
        return descendants(processes(), [root])
    found: set[int] = set()
    ahead = [root]
    while ahead:
        new = _children(ahead.pop()) - found
        found |= new
        ahead += new
    return found


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found.update(int(child) for child in file.read().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # It ends just now, and its children come to the keeper and are found in the next round; or it is another
        # user's, which nobody but root may ask or end.
        return found
    return found


def has_environment(pid: int, wanted: Iterable[str]) -> bool:
    """Whether the process was started with each `NAME=value`; False where it may not be asked."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            present = set(file.read().split(b"\0"))
    except OSError:
        return False
    return all(item.encode() in present for item in wanted)


def open_checked(pid: int, start: int) -> int | None:
    """A pidfd of the process that has that pid and start time, None when it is gone.

    The start time is read again with the pidfd open: from then on the pid cannot pass to another process unnoticed.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError, ValueError):
        return None
    entry = process(pid)
    if entry is None or entry.start != start or entry.zombie:
        os.close(pidfd)
        return None
    return pidfd


def in_cgroup(pid: int, folders: Iterable[str]) -> bool:
    """Whether the process is in every one of these cgroups (v1 or v2)."""
    for folder in folders:
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
                if str(pid) not in file.read().split():
                    return False
        except OSError:
            return False
    return True


def listeners(port: int) -> list[tuple[str, str, int]]:
    """Who listens on that TCP port of loopback or of every address: (host to connect to, kind, inode of the socket).

    `kind` is `own` for a socket bound to that very address and `any` for one bound to every address.
    """
    found = []
    for path, exact, wildcard, host in (
        ("/proc/net/tcp", _LOOPBACK_4, _ANY_4, "127.0.0.1"),
        ("/proc/net/tcp6", _LOOPBACK_6, _ANY_6, "[::1]"),
    ):
        for address, inode in _listening(path, port):
            if address in (exact, wildcard):
                found.append((host, "own" if address == exact else "any", inode))
    return found


def _listening(path: str, port: int) -> Iterable[tuple[str, int]]:
    suffix = f":{port:04X}"
    try:
        with open(path, encoding="ascii") as file:
            lines = file.readlines()[1:]
    except FileNotFoundError:
        return  # no IPv6 in this kernel
    for line in lines:
        fields = line.split()
        if fields[1].endswith(suffix) and fields[3] == _LISTEN:
            yield fields[1].partition(":")[0], int(fields[9])


def sockets(pid: int) -> set[int]:
    """The inodes of the sockets that a process holds; none where it may not be asked."""
    found: set[int] = set()
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found
