"""Whose a process is that the state of a killed keeper names: boot, pid, start time, marker and cgroup must agree."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mooring.workspaces.processes import procfs
from mooring.workspaces.processes.keeper.order import marker
from mooring.workspaces.processes.keepers import kill_keeper, left_editor
from support.waiting import until

MARKS = marker("workspace1", "instance1")


@dataclass
class Left:
    """A process, and a state that names it as keeper and as editor, in a cgroup whose list is a file of the test's."""

    process: subprocess.Popen[bytes]
    state: dict[str, Any]


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Left]:
    """A process of `workspace1`, as a killed keeper leaves its editor."""
    child = subprocess.Popen(["sleep", "1000"], env=dict(mark.split("=") for mark in MARKS))
    try:
        # A program that has just begun has no environment for a moment.
        until(Path(f"/proc/{child.pid}/environ").read_bytes)
        found = procfs.process(child.pid)
        assert found is not None
        (tmp_path / "cgroup.procs").write_text(f"1\n{child.pid}\n")
        identity = [child.pid, found.start]
        state = {"boot": procfs.boot_id(), "keeper": identity, "editor": identity, "folders": [str(tmp_path)]}
        yield Left(child, state)
    finally:
        child.kill()
        child.wait()


def test_the_editor_that_was_left_is_known(left: Left) -> None:
    """Where all of it agrees, also without cgroups."""
    assert left_editor(left.state, MARKS)
    assert left_editor(left.state | {"folders": []}, MARKS)


def test_one_thing_that_differs_makes_it_another_process(left: Left, tmp_path: Path) -> None:
    """Another boot's number, one that was used again, another installation's process, one that left the cgroup."""
    pid, start = left.state["editor"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cgroup.procs").write_text("1\n")
    for other in (
        {"boot": "another"},
        {"editor": None},
        {"editor": [pid, start + 1]},
        {"folders": [*left.state["folders"], str(elsewhere)]},
        {"folders": [str(tmp_path / "gone")]},
    ):
        assert not left_editor(left.state | other, MARKS), other
    assert not left_editor(left.state, marker("workspace1", "instance2"))
    assert not left_editor(left.state, marker("workspace2", "instance1"))


def test_a_keeper_that_hangs_is_killed_and_nobody_else(left: Left) -> None:
    """A number of another boot, or with another start time, is somebody else's."""
    pid, start = left.state["keeper"]
    for other in ({"boot": "another"}, {"keeper": [pid, start + 1]}):
        kill_keeper(left.state | other)
        # One that was just killed has not ended yet.
        with pytest.raises(subprocess.TimeoutExpired):
            left.process.wait(0.2)
    kill_keeper(left.state)
    until(lambda: left.process.poll() == -9)
