"""The rules that every test is under do bite."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from support.waiting import WITHIN_S, until

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent
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

# Each waits for a test's end as most of ours do, the first two beside each other.
WAIT = """
import asyncio, contextlib, pathlib, subprocess

import pytest

from support import meanwhile
from support.waiting import pause


@contextlib.contextmanager
def server(name):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        pathlib.Path(f"{name}.started").touch()
        try:
            yield
        finally:
            pathlib.Path(f"{name}.ended").touch()


def one():
    with server("one"):
        pause(1000)


async def other():
    with server("other"):
        await asyncio.sleep(1000)


@meanwhile.waits_for(one)
@meanwhile.waits_for(other)
def test_minutes(request):
    meanwhile.do(request.session.items)
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
    left = int((pytester.path / "left").read_text())
    # The session's end has killed it. Where its parent did not hear of that in time, we are the parent.
    with suppress(ChildProcessError):
        os.waitpid(left, 0)
    assert not Path(f"/proc/{left}").exists()
    done.assert_outcomes(passed=4, errors=3)
    done.stdout.fnmatch_lines(
        [
            "*processes left behind: {*cat*",
            "*listening sockets left behind*",
            "*tasks left behind: {'forgotten'}*",
        ]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_session_that_is_told_to_end_leaves_nothing(pytester: pytest.Pytester, number: signal.Signals) -> None:
    """Work in threads and loops of its own unwinds too: what it has started ends as after a test."""
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makepyfile(WAIT)
    words = [sys.executable, "-m", "pytest", "-o", "asyncio_mode=auto", "-o", f"pythonpath={TESTS}"]
    with subprocess.Popen(words, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as session:
        assert until(lambda: session.poll() is not None or len([*pytester.path.glob("*.started")]) == 2)
        session.send_signal(number)
        told, _ = session.communicate(timeout=WITHIN_S)
    assert session.returncode == pytest.ExitCode.INTERRUPTED, told.decode()
    assert {path.name for path in pytester.path.glob("*.ended")} == {"one.ended", "other.ended"}
