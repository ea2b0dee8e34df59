"""What holds for every test: nothing is left behind, and nothing but this machine is talked to."""

import asyncio
import ctypes
import ipaddress
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from support import house

_PR_SET_CHILD_SUBREAPER = 36


def pytest_configure() -> None:
    """Become the parent of every orphan, so that a process that a test left behind can be seen."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sys.addaudithook(_refuse_the_network)
    # A drawn example may meet a busy machine: no example is timed.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")


def pytest_unconfigure() -> None:
    """End what outlived single tests."""
    house.end()


def _refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = arguments[1][0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise PermissionError(f"a test may not talk to {host}") from None
    if not any(address in network for network in house.opened if network.version == address.version):
        raise PermissionError(f"a test may not talk to {host}")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, a listening socket or a task behind."""
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("no_task_left_behind")
    processes, listeners = _descendants(), _listeners()
    yield
    # What a server of the whole module started anew below itself is that server's.
    left = _descendants(without=processes.keys())
    assert not left, f"processes left behind: {left}"
    assert not _listeners() - listeners, "listening sockets left behind"


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind; set up first, so it is torn down last."""
    before = asyncio.all_tasks()
    yield
    left = {task.get_name() for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert not left, f"tasks left behind: {left}"


def _descendants(without: AbstractSet[int] = frozenset()) -> dict[int, str]:
    """The living processes below this one, by pid; not those of `without`, nor what is below them."""
    found: dict[int, str] = {}
    todo = [os.getpid()]
    while todo:
        for pid in _children(todo.pop()) - house.lasting - without:
            with suppress(OSError):
                # proc(5): the name is in parentheses, which it may hold itself; the state follows.
                head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                if rest.split()[0] != "Z":
                    found[pid] = head.partition("(")[2]
                    todo.append(pid)
    return found


def _children(pid: int) -> set[int]:
    """Of every thread of a process. To look at all of the machine's would be most of a short test's time."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found.update(map(int, (thread / "children").read_text().split()))
    return found


def _listeners() -> set[str]:
    """The listening sockets that this process holds, by inode."""
    held = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            inode = str(fd.readlink())
            if inode.startswith("socket:") and _listens(int(fd.name)):
                held.add(inode)
    return held


def _listens(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as held:
        # Netlink and the like know no such option.
        return held.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) and bool(
            held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
