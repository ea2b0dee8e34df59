"""What tests share with the rules that every test is under (conftest.py): networks opened, processes that stay."""

import ipaddress
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

opened: set[ipaddress.IPv4Network | ipaddress.IPv6Network] = {
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
}
lasting: set[int] = set()
_endings = ExitStack()
_WITHIN_S = 30.0


def open_network(network: str) -> None:
    """Let the tests talk to a network that they made themselves (a bridge of their own engine)."""
    opened.add(ipaddress.ip_network(network))


def at_end(end: Callable[[], None]) -> None:
    """Call `end` after the last test. What `lasting` names may live until then, with the processes below it."""
    _endings.callback(end)


def end() -> None:
    """Call what was left for the end, newest first. What then still lives was interrupted twice, and is killed."""
    try:
        _endings.close()
    finally:
        lasting.clear()
        deadline = time.monotonic() + _WITHIN_S
        # What is below a killed one comes here, as this process is told of every orphan.
        while (left := _descendants()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            threading.Event().wait(0.01)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail what leaves a process or a listening socket behind."""
    processes, listeners = _descendants(), _listeners()
    yield
    # What a server of the whole module started anew below itself is that server's.
    left = _descendants(without=processes.keys())
    assert not left, f"processes left behind: {left}"
    assert not _listeners() - listeners, "listening sockets left behind"


def _descendants(without: AbstractSet[int] = frozenset()) -> dict[int, str]:
    """The living processes below this one, by pid; not those of `without`, nor what is below them."""
    found: dict[int, str] = {}
    todo = [os.getpid()]
    while todo:
        for pid in _children(todo.pop()) - lasting - without:
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
