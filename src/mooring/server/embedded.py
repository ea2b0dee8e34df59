"""`mooring up`: everything on one machine. Prepares the home, takes its lock, and hands over to the supervisor."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import pwd
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mooring.errors import Conflict, Misconfigured
from mooring.gateway.leftover import end_leftover_nginx
from mooring.server.lifetime import REPLACED
from mooring.server.logs import to_terminal
from mooring.server.loopback import open_port
from mooring.server.supervisor import PYTHON, Account, Supervisor, account, bind, identity, settings_file
from mooring.settings import Home, Installation, cgroup_name
from mooring.workspaces.processes.cgroups import prepare

_DOWN_WITHIN_S = 60.0
_REHEARSED_S = 60.0
"""Several times what a database that is silent takes."""
_NOTHING_ENDED = "nothing was started or ended"
_LOCK_BYTES = 64
_LOOKED_S = 2.0
"""For tries beside those who only look."""


def up(installation: Installation, user: str | None, announce: Callable[[str], None], *, replacing: bool) -> None:
    """Run until a signal says stop. `replacing`: end the Mooring that runs on this home first, but no workspace.

    Raises:
        Misconfigured: the home or the port cannot be used; says what to type.
        Conflict: Mooring already runs on this home.
    """
    to_terminal()
    who = account(user)
    make_home(installation.home, who)
    replacing = replacing and running(installation.home) is not None
    if replacing:
        _check_port(installation)
        rehearse(installation, who, "all")
        _end(installation.home, REPLACED)
    with locked(installation.home):
        if installation.listen.tls and not replacing:
            # nginx would serve with a certificate of nobody's, and be called ready.
            rehearse(installation, who)
        end_leftover_nginx(installation.home)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(bind(installation.listen.address, installation.listen.port))
            modules = open_port(installation.home, installation.listen)
            if modules is not None:
                port = stack.enter_context(modules).getsockname()[1]
                installation = replace(installation, modules_port=port)
            stack.enter_context(prepare(who.uid, who.gid, name=cgroup_name(installation.home)))
            asyncio.run(Supervisor(installation, who, announce).run(listener, modules))


def _check_port(installation: Installation) -> None:
    """Raise Misconfigured for a port that we shall not get: the old Mooring would be gone, and none in its place."""
    listen = installation.listen
    try:
        bind(listen.address, listen.port).close()
    except Misconfigured as error:
        in_use = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
        if not in_use or not _may_be_at(installation.home, listen.port):
            raise


def rehearse(installation: Installation, who: Account, *more: str) -> None:
    """Raise Misconfigured for what a start would fail with, as found by `rehearsal.py`; `more` are its arguments."""
    with settings_file(installation) as settings:
        command = [*PYTHON, "-m", "mooring.server.rehearsal", str(settings), *more]
        try:
            done = subprocess.run(
                command,
                pass_fds=(settings,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_REHEARSED_S,
                check=False,
                **identity(who),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Misconfigured(f"the settings could not be tried: {error}. {_NOTHING_ENDED}") from error
    if done.returncode != 0:
        # Without a word of its own it has failed, or was killed.
        said = done.stdout.strip() or done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}"
        raise Misconfigured(f"{said}. Tried as the user {who.name}; {_NOTHING_ENDED}")


def _may_be_at(home: Home, port: int) -> bool:
    """Whether the Mooring of this home has that port; also true when it does not say where it is."""
    try:
        return bool(json.loads((home.run / "endpoint.json").read_text())["port"] == port)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def make_home(home: Home, who: Account) -> None:
    """The home folder, 0700 and owned by the user that everything runs as.

    Raises:
        Misconfigured: when it belongs to somebody else, or cannot be made.
    """
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (why := refused(home.root, who)) is not None:
            raise Misconfigured(why, field="MOORING_HOME")
        if home.root.stat().st_uid != who.uid:
            os.chown(home.root, who.uid, who.gid)
            home.root.chmod(0o700)
    except OSError as error:
        raise Misconfigured(f"{home.root}: {error.strerror}", field="MOORING_HOME") from error


def refused(folder: Path, who: Account) -> str | None:
    """Why this folder, which is there, is no home for `who`, and what to type; None: it may be theirs."""
    owner = folder.stat().st_uid
    if owner == who.uid:
        return None
    # Root may give away what is empty; with MOORING_HOME=/tmp it would give away everybody's folder.
    if os.geteuid() == 0 and {entry.name for entry in folder.iterdir()} <= {"lost+found"}:
        return None
    if os.geteuid() != 0:
        remedy = "name a folder of yours"
    elif owner != 0:
        remedy = f"start with --user {_name(owner)}"
    elif (folder / "lock").exists():
        # A copy of one. Of any other folder this advice would be the end.
        remedy = f"chown -R {who.name}: {shlex.quote(str(folder))}"
    else:
        remedy = "name an empty folder"
    return f"{folder} belongs to {_name(owner)}: {remedy}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # A volume from another machine.
        return str(uid)


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Hold the home's lock, with our pid in it: two supervisors would start two servers on one database.

    Raises:
        Conflict: when another process holds it.
        Misconfigured: when it cannot be written.
    """
    path = home.root / "lock"
    try:
        # No link is followed: the folder belongs to a user that root must not be led astray by.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}", field="MOORING_HOME") from error
    try:
        if not _acquired(fd):
            raise Conflict(
                f"Mooring already runs on {home.root} (pid {_holder(home)}); mooring down stops it and its "
                'workspaces, make up ARGS="--replace" takes its place and lets them run on'
            )
        try:
            # Over what is there, and never shorter: a full disk would not give the room back.
            os.pwrite(fd, json.dumps({"pid": os.getpid()}).ljust(_LOCK_BYTES).encode(), 0)
            there = os.fstat(fd)
            # With the umask of a careful root only root could see that it runs. What holds more than we wrote, or is a
            # file elsewhere, too, is not ours: who owns the folder can move any file of root's here.
            if there.st_uid == os.geteuid() and there.st_nlink == 1 and there.st_size <= _LOCK_BYTES:
                os.fchmod(fd, 0o644)
        except OSError as error:
            raise Misconfigured(f"{path}: {error.strerror}", field="MOORING_HOME") from error
        yield
    finally:
        os.close(fd)


def _acquired(fd: int) -> bool:
    """Take the lock; False when a supervisor has it. Whoever asks whether one runs has a share of it for an instant."""
    deadline = time.monotonic() + _LOOKED_S
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.sched_yield()
    return False


@dataclass(frozen=True, slots=True)
class Running:
    """A supervisor that holds the lock of a home."""

    pid: int


def running(home: Home) -> Running | None:
    """The supervisor of this home, None when none runs.

    Raises:
        Misconfigured: we may not look.
    """
    path = home.root / "lock"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except PermissionError:
        text = f"{path} is closed to you: run this as the user that started Mooring, or as root"
        raise Misconfigured(text, field="MOORING_HOME") from None
    except OSError:
        return None
    try:
        # Only the lock tells: a pid alone may have become another process's.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Running(_holder(home))
    finally:
        os.close(fd)
    return None


def down(home: Home) -> bool:
    """Stop the supervisor of this home and wait for it; False when none runs.

    Raises:
        Misconfigured: when it is not ours to stop.
    """
    return _end(home, signal.SIGTERM)


def _end(home: Home, by: signal.Signals) -> bool:
    found = running(home)
    if found is None:
        return False
    try:
        pidfd = os.pidfd_open(found.pid)
        if running(home) != found:
            return False
        signal.pidfd_send_signal(pidfd, by)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise Misconfigured(f"pid {found.pid} is another user's: run this as the user that started Mooring") from None
    _wait_for_end(pidfd)
    return True


def _wait_for_end(pidfd: int) -> None:
    try:
        ended, _, _ = select.select([pidfd], [], [], _DOWN_WITHIN_S)
        if not ended:
            raise Misconfigured(f"Mooring did not stop within {_DOWN_WITHIN_S:.0f} s; its log says why")
    finally:
        os.close(pidfd)


def _holder(home: Home) -> int:
    try:
        return int(json.loads(Path(home.root / "lock").read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
