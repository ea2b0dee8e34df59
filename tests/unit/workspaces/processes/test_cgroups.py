"""Limits as files of cgroup v1 and v2. A folder stands for the kernel's; the real one is in tests/real."""

import os
from pathlib import Path

import pytest

from mooring.model.workspace import Limits
from mooring.workspaces.processes import cgroups
from mooring.workspaces.processes.cgroups import CgroupRoot, Cgroups

ALL = Limits(cpu=1.5, memory="512Mi", pids=100)
V2_FILES = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")


def v2(tmp_path: Path, *controllers: str) -> CgroupRoot:
    """A root of v2 whose workspace folder has the kernel's files."""
    folder = tmp_path / "w"
    folder.mkdir()
    for name in V2_FILES:
        (folder / name).write_text("max")
    return CgroupRoot(2, {name: str(tmp_path) for name in ("", *controllers)})


def test_limits_of_v2(tmp_path: Path) -> None:
    """Memory with its swap, quota and period, processes: all in one folder."""
    placement = Cgroups(v2(tmp_path, "memory", "cpu", "pids")).place("w", ALL)
    assert placement == cgroups.Placement((str(tmp_path / "w"),), ("memory", "cpu", "pids"), ())
    assert [(tmp_path / "w" / name).read_text() for name in V2_FILES] == [str(2**29), "0", "150000 100000", "100"]


def test_a_controller_that_is_missing_is_a_limit_that_does_not_hold(tmp_path: Path) -> None:
    """What is asked for and cannot be enforced is named; storage never can."""
    root = v2(tmp_path, "memory")
    placement = Cgroups(root).place("w", ALL.model_copy(update={"storage": "1Gi"}))
    assert placement.limited == ("memory",)
    assert set(placement.unlimited) == {"cpu", "pids", "storage"}


def test_without_a_root_nothing_is_limited() -> None:
    """No cgroup can be written: each limit asked for is named, and none that was not."""
    assert Cgroups(None).place("w", ALL).unlimited == ("memory", "cpu", "pids")
    assert Cgroups(None).place("w", Limits()) == cgroups.Placement()


def test_own_cgroups_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mount points that hold several controllers or are no text, and a container's mount of a part of the tree."""
    texts = {
        "/proc/self/mountinfo": (
            "29 25 0:25 / /mnt/\udcff\x85 rw - tmpfs none rw\n"
            "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            "31 25 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
        "/proc/self/cgroup": "5:memory:/user.slice\n4:cpu,cpuacct:/docker/abc/inner\n0::/a/b\n",
    }
    monkeypatch.setattr(Path, "read_bytes", lambda self: os.fsencode(texts[str(self)]))
    assert cgroups.own_cgroups() == {
        "memory": Path("/sys/fs/cgroup/memory/user.slice"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct/inner"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct/inner"),
        "": Path("/sys/fs/cgroup/unified/a/b"),
    }


def test_counters_of_both_versions(tmp_path: Path) -> None:
    """CPU in seconds, memory without the page cache; what is not counted is None."""
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    (one / "cpuacct.usage").write_text("1500000000\n")
    (one / "memory.stat").write_text("cache 9\ntotal_rss 4096\n")
    (two / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (two / "memory.stat").write_text("anon 8192\nfile 1\n")
    assert cgroups.counters((str(one),)) == cgroups.Counters(1.5, 4096)
    assert cgroups.counters((str(two),)) == cgroups.Counters(2.5, 8192)
    assert cgroups.counters(()) == cgroups.Counters(None, None)


def test_limits_are_looked_for_above_a_shell(tmp_path: Path) -> None:
    """Not where processes of others are, which the kernel refuses; in the nearest place that has most."""

    def cgroup(*names: str, controllers: str, processes: str = "") -> Path:
        folder = tmp_path.joinpath(*names)
        folder.mkdir(exist_ok=True)
        for file, text in (("type", "domain"), ("controllers", controllers), ("procs", processes)):
            (folder / f"cgroup.{file}").write_text(f"{text}\n" if text else "")
        return folder

    machine = cgroup(controllers="cpu memory pids")
    cgroup("user", controllers="memory pids")
    cgroup("user", "full", controllers="cpu memory pids", processes="1")
    terminal = cgroup("user", "full", "terminal", controllers="", processes="1\n2")
    assert cgroups.possible(terminal) == (machine, ("memory", "cpu", "pids"))
    cgroup(controllers="memory")
    assert cgroups.possible(terminal) == (tmp_path / "user", ("memory", "pids"))
    alone = cgroup("user", "service", controllers="pids", processes=str(os.getpid()))
    assert cgroups.possible(alone) == (alone, ("pids",))
