"""What the kernel says of processes: who they are, so that a number that was used again is never taken for ours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A living process. `started` is its start in clock ticks since boot; with `pid` it never names another one."""

    pid: int
    started: int
    group: int
    name: str
    uid: int


def process(pid: int) -> Process | None:
    """The process, None when it is gone or a zombie."""
    folder = PROC / str(pid)
    try:
        # Anybody's process may have any bytes for a name.
        head, _, rest = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
        uid = folder.stat().st_uid
    except OSError:
        return None
    # Fields of proc(5), counted from the state.
    fields = rest.split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), int(fields[2]), head.partition("(")[2], uid)


def processes() -> Iterator[Process]:
    """The living processes of the machine."""
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (found := process(int(entry.name))):
            yield found


def works_in(pid: int, folder: Path) -> bool:
    """Whether that is the process's working folder; not when it may not be asked, or either is gone."""
    try:
        return (PROC / str(pid) / "cwd").samefile(folder)
    except OSError:
        return False
