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


def at_end(end: Callable[[], None]) -> None:
    """Call `end` after the last test. What `lasting` names may live until then, with the processes below it."""
    _endings.append(end)


def end() -> None:
    """Call what was left for the end, newest first."""
    while _endings:
        _endings.pop()()
