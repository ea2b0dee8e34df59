"""Where the go command of a process workspace asks, and the number that it stays at."""

import os
import socket
from pathlib import Path

import pytest

from mooring.server.loopback import address, open_port, remember
from mooring.settings import Home, Installation, Listen

ELSEWHERE = Listen(tls=True, domain="mooring.localhost")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose folder `run` is there."""
    (tmp_path / "run").mkdir()
    return Home(tmp_path)


def port_of(home: Home) -> int:
    """The number that a supervisor would open now."""
    opened = open_port(home, ELSEWHERE)
    assert opened is not None
    with opened:
        return int(opened.getsockname()[1])


def test_the_public_listener_will_do_wherever_it_is_localhost_in_plain(home: Home) -> None:
    """There workspaces ask at its own port; everywhere else at a port in plain."""
    for listen, url in (
        (Listen(port=8123), "http://localhost:8123/goproxy"),
        (Listen(address="::1", port=80), "http://localhost/goproxy"),
    ):
        assert open_port(home, listen) is None
        assert address(Installation(home, listen, Path("editor"))) == url
    for listen in (Listen(domain="dev.example"), Listen(address="192.0.2.7"), Listen(tls=True)):
        opened = open_port(home, listen)
        assert opened is not None
        opened.close()
    assert address(Installation(home, ELSEWHERE, Path("editor"), modules_port=4711)) == "http://127.0.0.1:4711/goproxy"


def test_the_number_stays_as_long_as_nobody_else_has_it(home: Home) -> None:
    """Workspaces that outlived a kill find the proxy where it was."""
    first = port_of(home)
    remember(home, first)
    assert port_of(home) == first
    with socket.create_server(("127.0.0.1", first)):
        assert port_of(home) != first


@pytest.mark.parametrize("text", ["", "much", "-1", "80", "70000", "9" * 5000])
def test_a_damaged_number_is_none(home: Home, text: str) -> None:
    """Any free port is taken then, and none that is somebody's by right."""
    home.modules_port.write_text(text)
    assert port_of(home) >= 1024


def test_root_is_led_nowhere(home: Home) -> None:
    """A link or a pipe in the place of the number is as good as none, and nobody waits for it."""
    (home.root / "other").write_text("1234")
    home.modules_port.symlink_to(home.root / "other")
    assert port_of(home) != 1234
    home.modules_port.unlink()
    os.mkfifo(home.modules_port)
    assert port_of(home) >= 1024


def test_a_number_that_cannot_be_kept_stops_nothing(tmp_path: Path) -> None:
    """The next start has another one."""
    remember(Home(tmp_path / "gone"), 4711)
    assert not (tmp_path / "gone").exists()
