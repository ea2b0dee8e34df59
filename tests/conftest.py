"""What holds for every test: nothing is left behind, and nothing but this machine is talked to."""

import asyncio
import ctypes
import ipaddress
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hypothesis
import pytest
import structlog

from support import house

_PR_SET_CHILD_SUBREAPER = 36


def pytest_configure() -> None:
    """Become the parent of every orphan, so that a process that a test left behind can be seen."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sys.addaudithook(_refuse_the_network)
    # A shell has what it starts in the background ignore Ctrl-C, and every program of a test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Their default ends this process alone, and leaves everything that its tests have started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    # What tests lay out for other users would be closed to them where root's umask is strict.
    os.umask(0o022)
    # A network's proxy is for other machines; without NO_PROXY clients would ask it for ours.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:  # noqa: TID251 - before any test
        del os.environ[name]  # noqa: TID251
    # A drawn example may meet a busy machine: no example is timed.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    _log_tracebacks_plainly()


def _log_tracebacks_plainly() -> None:
    """The default draws the local variables of every frame: a second for each exception that a test has logged."""
    *before, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*before, plain])


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
    with house.nothing_left():
        yield


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind; set up first, so it is torn down last."""
    before = asyncio.all_tasks()
    yield
    left = {task.get_name() for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert not left, f"tasks left behind: {left}"
