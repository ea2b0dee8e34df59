# ruff: noqa: PTH123 - pathlib would cost each keeper a megabyte
"""Starts a program in a workspace: session, cgroups, folder, environment. Fork and exec by hand, in the keeper only.

The keeper has one thread, so the child may run Python between fork and exec. Its memory is a few megabytes, so a fork
is cheap. No typing, no dataclasses.
"""

import fcntl
import os
import signal
import termios
from collections.abc import Mapping, Sequence

from mooring.workspaces.processes import membership

# Where memory runs out on the whole machine, a workspace's compiler goes before the server and the database.
_OOM_SCORE = "500"


class Program:
    """What to run: an argument list, its whole environment, its folder, and the cgroups to enter first."""

    __slots__ = ("argv", "cwd", "environment", "folders")

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], cwd: str, folders: Sequence[str] = ()
    ) -> None:
        self.argv = list(argv)
        self.environment = dict(environment)
        self.cwd = cwd
        self.folders = list(folders)


def spawn(program: Program, stdio: tuple[int, int, int], *, tty: bool = False) -> int:
    """Start it as the leader of a session of its own, with those three descriptors; `tty`: they are its terminal.

    Returns the pid once the program itself runs. Raises OSError when it cannot be started, and says which part failed.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(program, stdio, tell, tty=tty)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        failure = pipe.read()  # ends at the exec: the other end is closed by it
    if failure:
        os.waitpid(pid, 0)
        code, _, text = failure.decode(errors="replace").partition(" ")
        raise OSError(int(code), text)
    return pid


def _child(program: Program, stdio: tuple[int, int, int], tell: int, *, tty: bool) -> None:
    part = "start"
    try:
        os.setsid()
        _reset_signals()
        part = "enter the cgroup of the workspace"
        membership.enter(program.folders)
        _expendable()
        for target, source in enumerate(stdio):
            os.dup2(source, target, inheritable=True)
        if tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.umask(0o022)
        part = f"open the folder {program.cwd}"
        os.chdir(program.cwd)
        part = f"run {program.argv[0]}"
        os.execvpe(program.argv[0], program.argv, program.environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(tell, f"{error.errno} cannot {part}: {error.strerror}".encode())
    finally:
        # Never back into the parent's code: two keepers would run.
        os._exit(127)


def _reset_signals() -> None:
    # Python ignores SIGPIPE, and ignored signals survive an exec: `yes | head` would never end.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _expendable() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(_OOM_SCORE)
    except OSError:
        return  # a container that forbids it; the workspace's own memory limit still holds
