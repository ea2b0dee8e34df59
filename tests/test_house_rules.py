"""The rules that every test is under do bite."""

import os
import socket
from pathlib import Path

import pytest

from support.waiting import until

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent
# Each is over with the session that left it.
LEAVE = """
import asyncio, pathlib, socket, subprocess

KEPT = []


def test_a_process():
    KEPT.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
    pathlib.Path("left").write_text(str(KEPT[0].pid))


def test_a_listener():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))


async def test_a_task():
    KEPT.append(asyncio.get_running_loop().create_task(asyncio.sleep(1000), name="forgotten"))


async def test_nothing():
    await asyncio.sleep(0)
"""


def test_a_test_cannot_talk_to_another_machine() -> None:
    """A connection to an address that no test opened is refused before a packet leaves."""
    with socket.socket() as client, pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        client.connect(("192.0.2.1", 80))


def test_what_a_test_leaves_behind_fails_it(pytester: pytest.Pytester) -> None:
    """A process, a listening socket and a task of the loop each fail the test that left them, and no other."""
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makepyfile(LEAVE)
    done = pytester.runpytest_subprocess("-o", "asyncio_mode=auto", "-o", f"pythonpath={TESTS}")
    # The process ends with the session, a moment later, and is this one's child then.
    left = int((pytester.path / "left").read_text())
    until(lambda: os.waitpid(left, os.WNOHANG) != (0, 0))
    done.assert_outcomes(passed=4, errors=3)
    done.stdout.fnmatch_lines(
        [
            "*processes left behind: {*cat*",
            "*listening sockets left behind*",
            "*tasks left behind: {'forgotten'}*",
        ]
    )
