"""Kills a piece of work at a chosen point: in a process of its own, before its n-th call that may change files.

Between two such calls the files do not change, so the points together are all the states that kill -9 can leave;
what one call does by halves is the file system's promise. Seen are calls of the modules `os`, `fcntl` and `io` and of
open files: work that writes in another way (SQLite, mmap) needs more.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

_MODULES = {"posix", "fcntl", "io", "_io"}
_CHANGE_NOTHING = {"fspath", "stat", "lstat", "fstat", "urandom", "text_encoding", "fileno", "read", "seek"}


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

    def count(_frame: FrameType, event: str, called: object) -> None:
        nonlocal calls
        if event == "c_call" and _may_change_files(called):
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


def _may_change_files(called: object) -> bool:
    if getattr(called, "__name__", "") in _CHANGE_NOTHING:
        return False
    return getattr(called, "__module__", None) in _MODULES or isinstance(getattr(called, "__self__", None), io.IOBase)
