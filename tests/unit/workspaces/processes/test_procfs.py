"""Reading /proc: identities, descendants and listeners."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.workspaces.processes import procfs
from mooring.workspaces.processes.procfs import Process
from support.waiting import until

LINE = "{pid} ({name}) {state} {parent} 1 7 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0 {start} 0 3 0"


def line(pid: int, parent: int, name: str = "sh", state: str = "S", start: int = 5) -> Process:
    """A process of a made-up table."""
    return Process(pid, LINE.format(pid=pid, name=name, state=state, parent=parent, start=start))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A living process with a mark in its environment."""
    child = subprocess.Popen(["sleep", "1000"], env={"MARK": "here"})
    try:
        # A program that has just begun has no environment for a moment.
        until(Path(f"/proc/{child.pid}/environ").read_bytes)
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_command_may_look_like_the_end_of_the_field() -> None:
    """Spaces and parentheses in a program's name do not shift the fields."""
    found = line(9, 4, name="a) S 1 (b c")
    assert (found.command, found.parent, found.start, found.zombie) == ("a) S 1 (b c", 4, 5, False)
    assert found.cpu_s == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))
    assert line(9, 4, state="Z").zombie


def test_descendants_are_without_the_root() -> None:
    """Everything below the roots, at any depth, and nothing beside them."""
    table = {entry.pid: entry for entry in (line(2, 1), line(3, 2), line(4, 3), line(5, 1))}
    assert procfs.descendants(table, [2]) == {3, 4}
    assert procfs.descendants(table, [5]) == set()


def test_a_pid_is_opened_only_for_its_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    """The same pid with another start time is another process."""
    found = procfs.process(sleeper.pid)
    assert found is not None
    pidfd = procfs.open_checked(sleeper.pid, found.start)
    assert pidfd is not None
    os.close(pidfd)
    assert procfs.open_checked(sleeper.pid, found.start + 1) is None
    sleeper.kill()
    assert procfs.open_checked(2**22 + 1, 1) is None


def test_a_zombie_is_nobody(sleeper: subprocess.Popen[bytes]) -> None:
    """A process that ended and waits for its parent cannot be opened and is not in the table."""
    found = procfs.process(sleeper.pid)
    assert found is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.open_checked(sleeper.pid, found.start) is None
    assert sleeper.pid not in procfs.processes()


def test_the_environment_is_asked_for_whole_entries(sleeper: subprocess.Popen[bytes]) -> None:
    """Every entry must be there, whole."""
    assert procfs.has_environment(sleeper.pid, ["MARK=here"])
    assert not procfs.has_environment(sleeper.pid, ["MARK=her"])
    assert not procfs.has_environment(sleeper.pid, ["MARK=here", "OTHER=1"])


@pytest.mark.parametrize(
    ("family", "address", "expected"),
    [
        (socket.AF_INET, "127.0.0.1", ("127.0.0.1", "own")),
        (socket.AF_INET, "0.0.0.0", ("127.0.0.1", "any")),  # noqa: S104 - that is the case
        (socket.AF_INET6, "::1", ("[::1]", "own")),
        (socket.AF_INET6, "::", ("[::1]", "any")),
    ],
)
def test_listeners_of_loopback_and_of_every_address(
    family: socket.AddressFamily, address: str, expected: tuple[str, str]
) -> None:
    """Where to connect, and whether the socket is bound to that very address; its inode is the holder's."""
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert procfs.listeners(port) == []
        listener.listen()
        ((host, kind, inode),) = procfs.listeners(port)
        assert (host, kind) == expected
        assert inode in procfs.sockets(os.getpid())


def test_the_tree_below_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    """Children and theirs are found, one that a shell started too."""
    with subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        try:
            assert procfs.tree(os.getpid()) >= {sleeper.pid, shell.pid, grandchild}
            assert procfs.tree(shell.pid) == {grandchild}
            assert procfs.tree(shell.pid) == procfs.descendants(procfs.processes(), [shell.pid])
        finally:
            os.kill(grandchild, 9)
