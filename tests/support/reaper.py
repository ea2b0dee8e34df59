"""`python reaper.py COMMAND…`: runs a daemon as the parent of everything that it leaves behind.

Ends it, and then all of that, when told to (SIGTERM) and when standard input closes: a killed test session leaves
nothing running.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 30.0


def children() -> list[int]:
    """The direct children of this process, zombies included."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def main(command: list[str]) -> None:
    """Until the daemon ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    asked_at, dead = 0.0, False
    while not dead or children():
        ready, _, _ = select.select([told, *([] if asked_at else [0])], [], [], 0.2)
        wanted = os.read(told, 4096) if told in ready else b""
        now = time.monotonic()
        if not asked_at and (0 in ready or set(wanted) & {signal.SIGTERM, signal.SIGINT}):
            asked_at = now
            with suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGTERM)
        if dead or (asked_at and now - asked_at > _GRACE_S):
            for child in children():
                os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                dead = dead or pid == daemon.pid


if __name__ == "__main__":
    main(sys.argv[1:])
