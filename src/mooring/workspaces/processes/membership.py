# ruff: noqa: PTH110, PTH123 - pathlib would cost each keeper a megabyte
"""A process's life in the cgroups of one workspace: entering, counting, ending, and word of memory that ran out.

`folders` are the workspace's own cgroups: one for each v1 controller, or the only one of v2. Making and removing them
is the server's (`cgroups.py`). Imported by the keeper: no typing, no dataclasses.
Source: the kernel's admin-guide, cgroup-v1 and cgroup-v2.
"""

import os
import select
from collections.abc import Iterable


def enter(folders: Iterable[str]) -> None:
    """Move this process. Raises OSError: a workspace without the limits that it shows must not start."""
    for folder in folders:
        _write(f"{folder}/cgroup.procs", "0")


def pids(folders: Iterable[str]) -> set[int]:
    """The processes in any of them, below included."""
    found: set[int] = set()
    for folder in folders:
        for path, _, names in os.walk(folder):
            if "cgroup.procs" in names:
                found.update(int(pid) for pid in _read(f"{path}/cgroup.procs").split())
    return found


def forbid_forks(folders: Iterable[str]) -> None:
    """Let nothing new start: a program that forks faster than it is killed would never end otherwise."""
    for folder in folders:
        _try(f"{folder}/pids.max", "0")


def kill(folders: Iterable[str]) -> None:
    """Kill all at once where the kernel can (v2 since 5.14); elsewhere the caller kills one by one."""
    for folder in folders:
        _try(f"{folder}/cgroup.kill", "1")


def memory_kills(folders: Iterable[str]) -> int:
    """How many processes were killed since the cgroup was made because its memory ran out."""
    for folder in folders:
        for name in ("memory.oom_control", "memory.events"):
            for line in _read(f"{folder}/{name}").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def memory_alarm(folders: Iterable[str]) -> tuple[int, int] | None:
    """A descriptor that becomes ready when memory ran out, with the poll event to wait for; None without a limit."""
    for folder in folders:
        try:
            if os.path.exists(f"{folder}/memory.events"):
                return os.open(f"{folder}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI
            if os.path.exists(f"{folder}/memory.oom_control"):
                return _eventfd(folder), select.POLLIN
        except OSError:
            return None
    return None


def _eventfd(folder: str) -> int:
    alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _write(f"{folder}/cgroup.event_control", f"{alarm} {control}")
    except OSError:
        os.close(alarm)
        raise
    finally:
        os.close(control)
    return alarm


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _try(path: str, text: str) -> None:
    try:
        _write(path, text)
    except OSError:
        return  # a controller that is not here, or a cgroup that is gone
