"""Waiting for another process, in a test without a loop."""

import time
from collections.abc import Callable
from typing import Any

WITHIN_S = 30.0


def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> Any:  # noqa: ANN401 - what the condition gives
    """The first true value of `condition`, asked for again and again."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        pause()
    return value


def pause(seconds: float = 0.05) -> None:
    """Let the others work."""
    time.sleep(seconds)  # noqa: TID251 - a test without a loop
