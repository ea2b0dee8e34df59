"""What tests share with the rules that every test is under (conftest.py): networks opened, processes that stay."""

import ipaddress
from collections.abc import Callable

opened: set[ipaddress.IPv4Network | ipaddress.IPv6Network] = {
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
}
lasting: set[int] = set()
_endings: list[Callable[[], None]] = []


def open_network(network: str) -> None:
    """Let the tests talk to a network that they made themselves (a bridge of their own engine)."""
    opened.add(ipaddress.ip_network(network))


def keep(pid: int, end: Callable[[], None]) -> None:
    """Let that process and those below it outlive a test; `end` is called after the last one."""
    lasting.add(pid)
    _endings.append(end)


def end() -> None:
    """End what was kept, newest first."""
    while _endings:
        _endings.pop()()
