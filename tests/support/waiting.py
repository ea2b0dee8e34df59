"""Waiting for another process, in a test without a loop."""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

WITHIN_S = 30.0
given_up: ContextVar[threading.Event] = ContextVar("given_up", default=threading.Event())  # noqa: B039 - never set
"""Set, it ends what waits in a thread of its own, which no signal reaches (meanwhile.py)."""


def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> Any:  # noqa: ANN401 - what the condition gives
    """The first true value of `condition`, asked for again and again."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        pause()
    return value


def pause(seconds: float = 0.05) -> None:
    """Let the others work.

    Raises:
        KeyboardInterrupt: the session was interrupted.
    """
    if given_up.get().wait(seconds):
        raise KeyboardInterrupt
