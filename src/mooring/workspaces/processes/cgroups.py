"""Memory, CPU and process limits by cgroup v1 or v2: what root prepares once, and what the server makes of it.

The supervisor calls `prepare` before it drops privileges, and passes the result on; the server makes one cgroup a
workspace below it. Where nothing can be written there is no root, and every limit is reported as not enforced.
RLIMIT_AS is no substitute: it counts address space, of which Node reserves gigabytes.

Source: the kernel's admin-guide, cgroup-v1 and cgroup-v2; proc(5) for mountinfo.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from mooring.model.workspace import Limits, quantity_bytes
from mooring.workspaces.processes import membership, procfs

CONTROLLERS = ("memory", "cpu", "pids", "cpuacct")
V2 = ("memory", "cpu", "pids")
_PERIOD_US = 100_000
_SERVICES = "services"
# What a server that is not root writes to in its own subtree: entering, delegating.
_DELEGATED = ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks")


@dataclass(frozen=True, slots=True)
class CgroupRoot:
    """Where cgroups of workspaces are made: a folder for each controller (v1: one a hierarchy; v2: all the same)."""

    version: int
    folders: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Placement:
    """The cgroups of one workspace. `limited` and `unlimited` name the limits that hold and that cannot."""

    folders: tuple[str, ...] = ()
    limited: tuple[str, ...] = ()
    unlimited: tuple[str, ...] = ()


@contextmanager
def prepare(uid: int, gid: int, *, name: str = "") -> Iterator[CgroupRoot | None]:
    """Make a cgroup below this process's own, give it to `uid`, and take it away at the end; None: not allowed.

    With v2 this process moves into a leaf of it first: a cgroup with processes cannot have children with limits. A
    terminal's holds the shell, so there it is made above, where most limits can be had (`possible`). Root may do that;
    for others `systemd-run --user --scope -p Delegate=yes` makes a cgroup that works. This process's children start in
    the leaf, and find the root with `find`.
    """
    home = own_cgroups().get("")
    root = _prepare((uid, gid), name or _name(uid))
    try:
        yield root
    finally:
        if root is not None:
            _release(root, home)


def find(*, name: str = "", pid: str = "self") -> CgroupRoot | None:
    """What a parent of this process (or of `pid`) has prepared for its user, None when none has."""
    own = own_cgroups(pid)
    name = name or _name(os.geteuid())
    if "memory" in own or "" not in own:
        folders = {key: str(own[key] / name) for key in CONTROLLERS if key in own and _is_ours(own[key] / name)}
        return CgroupRoot(1, folders) if folders else None
    folder = own[""].parent
    if own[""].name != _SERVICES or not _is_ours(folder):
        return None
    return _root_v2(folder)


def _name(uid: int) -> str:
    # One a user: a second Mooring of another user must not take the first one's away.
    return f"mooring-{uid}"


def _is_ours(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _prepare(owner: tuple[int, int], name: str) -> CgroupRoot | None:
    own = own_cgroups()
    v1 = {controller: folder for controller, folder in own.items() if controller in CONTROLLERS}
    try:
        if "memory" in v1 or "" not in own:
            return _prepare_v1(v1, owner, name)
        return _prepare_v2(own[""], owner, name)
    except OSError:
        return None


def _release(root: CgroupRoot, home: Path | None) -> None:
    if root.version == 2 and home is not None:  # noqa: PLR2004
        _leave(Path(root.folders[""]), home)
        return
    for folder in root.folders.values():
        # Not empty: workspaces run on, or another Mooring has its own there.
        _try_remove(Path(folder))


def _leave(folder: Path, home: Path) -> None:
    """Back to where this process came from; not while others live there."""
    if any(entry.is_dir() and entry.name != _SERVICES for entry in folder.iterdir()):
        return  # workspaces run on: without its controllers they would be without their limits
    if folder.parent == home:
        # Else this process could not be in it again. What was switched on above stays: others may count on it by now.
        for inner in (folder, home):
            for controller in V2:
                _try_write(inner / "cgroup.subtree_control", f"-{controller}")
    _try_write(home / "cgroup.procs", "0")
    # Not empty: another Mooring of this user.
    _try_remove(folder / _SERVICES)
    _try_remove(folder)


def _prepare_v1(own: Mapping[str, Path], owner: tuple[int, int], name: str) -> CgroupRoot | None:
    made: dict[str, str] = {}
    for controller, folder in own.items():
        with suppress(OSError):
            _delegate(folder / name, owner)
            made[controller] = str(folder / name)
    return CgroupRoot(1, made) if made else None


def possible(own: Path) -> tuple[Path, tuple[str, ...]]:
    """Where, with v2, a process whose cgroup is `own` can make some with limits, and which controllers have them.

    In `own`, where a service's limits hold for its workspaces too. With others in it, as a shell is, in the nearest one
    above with the most controllers.
    """
    alone = set(_read(own / "cgroup.procs").split()) <= {str(os.getpid())}
    if alone or _is_outermost(own):
        return own, _controllers(own)
    above = takewhile(lambda folder: (folder / "cgroup.procs").exists(), own.parents)
    places = [folder for folder in above if _is_outermost(folder) or not _read(folder / "cgroup.procs")]
    best = max(places, key=lambda folder: len(_controllers(folder)), default=own)
    found = _controllers(best) if best != own else ()
    return (best, found) if found else (own, ())


def _is_outermost(folder: Path) -> bool:
    """Of all there are: it has no type, and may have processes beside children with limits."""
    return not (folder / "cgroup.type").exists()


def _controllers(folder: Path) -> tuple[str, ...]:
    found = _read(folder / "cgroup.controllers").split() if _is_ours(folder) else []
    return tuple(controller for controller in V2 if controller in found)


def _prepare_v2(own: Path, owner: tuple[int, int], name: str) -> CgroupRoot:
    place, controllers = possible(own)
    folder = place / name
    _delegate(folder, owner)
    _delegate(folder / _SERVICES, owner)
    (folder / _SERVICES / "cgroup.procs").write_text("0")
    for controller in controllers:
        # Each alone: one that is not available must not cost the others.
        _try_write(place / "cgroup.subtree_control", f"+{controller}")
        _try_write(folder / "cgroup.subtree_control", f"+{controller}")
    return _root_v2(folder)


def _root_v2(folder: Path) -> CgroupRoot:
    enabled = _read(folder / "cgroup.subtree_control").split()
    return CgroupRoot(2, {"": str(folder)} | {controller: str(folder) for controller in V2 if controller in enabled})


def _delegate(folder: Path, owner: tuple[int, int]) -> None:
    folder.mkdir(exist_ok=True)
    if owner[0] == os.geteuid():
        return
    for name in _DELEGATED:
        if (folder / name).exists():
            os.chown(folder / name, *owner)


def own_cgroups(pid: str = "self") -> dict[str, Path]:
    """The folder of this process's cgroup for each controller; that of v2 under the empty name."""
    mounts = _mounts()
    found: dict[str, Path] = {}
    for line in os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes()).split("\n")[:-1]:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounts:
                point, root = mounts[controller]
                inside = path.removeprefix(root) if root != "/" and path.startswith(root) else path
                found[controller] = point / inside.lstrip("/")
    return found


def _mounts() -> dict[str, tuple[Path, str]]:
    """Controller to (mount point, the cgroup that is mounted there)."""
    found: dict[str, tuple[Path, str]] = {}
    # A mount point may be any bytes; one that is no text must not end every start.
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]:
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        root, point = head.split()[3:5]
        names = [""] if kind == "cgroup2" else options.split(",") if kind == "cgroup" else []
        found.update({name: (Path(point), root) for name in names})
    return found


class Cgroups:
    """Makes, reads and removes the cgroups of workspaces below `root`.

    `owner` (uid, gid) gets them when this process is another user than the one that workspaces run as.
    """

    def __init__(self, root: CgroupRoot | None, owner: tuple[int, int] | None = None) -> None:
        self._root = root
        self._owner = owner

    def place(self, workspace_id: str, limits: Limits) -> Placement:
        """The workspace's cgroups with its limits set. A limit that cannot be set is in `unlimited`; never raises."""
        asked = _settings(limits, self._root.version if self._root else 1)
        unlimited = [name for name in ("storage",) if limits.storage is not None]
        limited: list[str] = []
        folders = self._make(workspace_id)
        for name, values in asked.items():
            folder = folders.get(name)
            held = folder is not None and all(_set(folder / file, value) for file, value in values.items())
            (limited if held else unlimited).append(name)
        unique = tuple(dict.fromkeys(str(folder) for folder in folders.values()))
        return Placement(unique, tuple(limited), tuple(unlimited))

    def folders(self, workspace_id: str) -> tuple[str, ...]:
        """Where the workspace's cgroups are when there are any."""
        parents = self._root.folders.values() if self._root else ()
        return tuple(dict.fromkeys(f"{parent}/{workspace_id}" for parent in parents))

    def _make(self, workspace_id: str) -> dict[str, Path]:
        made: dict[str, Path] = {}
        for controller, parent in self._root.folders.items() if self._root else ():
            folder = Path(parent) / workspace_id
            try:
                folder.mkdir(exist_ok=True)
                self._give(folder)
            except OSError:
                continue
            made[controller] = folder
        return made

    def _give(self, folder: Path) -> None:
        if self._owner is not None:
            for entry in (folder, *folder.iterdir()):
                os.chown(entry, *self._owner)


def _settings(limits: Limits, version: int) -> dict[str, dict[str, str]]:
    """Limit to the files that set it. Swap is part of the memory limit, or a hog would just become slow."""
    asked: dict[str, dict[str, str]] = {}
    v1 = version == 1
    if limits.memory is not None:
        size = str(quantity_bytes(limits.memory))
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if v1 else ("memory.max", "memory.swap.max")
        asked["memory"] = dict(zip(names, (size, size if v1 else "0"), strict=True))
    if limits.cpu is not None:
        quota = str(int(limits.cpu * _PERIOD_US))
        both = {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}
        asked["cpu"] = both if v1 else {"cpu.max": f"{quota} {_PERIOD_US}"}
    if limits.pids is not None:
        asked["pids"] = {"pids.max": str(limits.pids)}
    return asked


def remove(folders: tuple[str, ...]) -> None:
    """Remove the cgroups of a workspace; one that still holds a process stays."""
    for folder in folders:
        for path, _, _ in os.walk(folder, topdown=False):  # a workspace may have made some below its own
            _try_remove(Path(path))


def are_held(folders: tuple[str, ...]) -> bool:
    """Whether a process lives in any of these cgroups."""
    found = (procfs.process(pid) for pid in membership.pids(folders))
    return any(entry is not None and not entry.zombie for entry in found)


@dataclass(frozen=True, slots=True)
class Counters:
    """CPU seconds since the cgroup was made and bytes held by its processes (without the page cache)."""

    cpu_s: float | None
    memory_bytes: int | None


def counters(folders: tuple[str, ...]) -> Counters:
    """What the kernel counted for these cgroups; None for what they do not count."""
    cpu: float | None = None
    memory: int | None = None
    for folder in map(Path, folders):
        if text := _read(folder / "cpuacct.usage"):
            cpu = int(text) / 1e9
        elif text := _field(folder / "cpu.stat", "usage_usec"):
            cpu = int(text) / 1e6
        if text := _field(folder / "memory.stat", "total_rss") or _field(folder / "memory.stat", "anon"):
            memory = int(text)
    return Counters(cpu, memory)


def _set(path: Path, value: str) -> bool:
    if not path.exists() and "sw" in path.name:
        return True  # a kernel that does not account swap
    return _try_write(path, value)


def _field(path: Path, name: str) -> str:
    return next((line.split()[1] for line in _read(path).splitlines() if line.startswith(f"{name} ")), "")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _try_write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


def _try_remove(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
