"""Kills a piece of work at a chosen point: in a process of its own, before its n-th call of a C function.

Everything that a process does to files is such a call, so the points together are all the states that kill -9 can
leave between two of them; what one call does by halves is the file system's promise.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


def killed_at(point: int, work: Callable[[], object]) -> bool:
    """Run `work` and kill it at that point; False when it ended before."""
    child = os.fork()
    if child == 0:
        _run(point, work)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def _run(point: int, work: Callable[[], object]) -> None:
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event == "c_call":
            calls += 1
            if calls > point:
                os.kill(os.getpid(), signal.SIGKILL)

    failed = True
    try:
        sys.setprofile(count)
        work()
        sys.setprofile(None)
        failed = False
    finally:
        os._exit(failed)
