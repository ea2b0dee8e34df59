"""What killed processes left below a store's folder: half a file in the spool, and the folders of jobs.

Whoever writes there what is to be kept holds a lock, which ends with its process. So nothing of it is ever removed
while it is being written, in this process or another one, and what nobody holds goes. All but `swept` is blocking.
"""

import asyncio
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mooring.errors import Unavailable
from mooring.goproxy.faults import FULL, NoSpace

SPOOL = "spool"
_JOB = ".mooring-job-"
_OURS = (_JOB, ".mooring-import-")
"""What a folder's name begins with that a job makes, or an `import` of before: a person chose any other name."""
_JUST_MADE_S = 30.0
"""What is younger stays: it is locked a moment after it was made."""


async def swept(root: Path) -> None:
    """`sweep`, beside everything else that the loop does."""
    ended = threading.Event()
    try:
        await asyncio.to_thread(sweep, root, ended.is_set)
    finally:
        # The loop's end waits for its threads: half an import is a million files.
        ended.set()


def sweep(root: Path, ended: Callable[[], bool] = lambda: False) -> None:
    """Remove what nobody writes any more, up to the file at which `ended`. Another user's is that user's to remove."""
    for file in _found(root, f"{SPOOL}/*"):
        if ended():
            return
        _remove(file, os.O_RDWR, Path.unlink)
    for folder in (found for prefix in _OURS for found in _found(root, f"{prefix}*")):
        _remove(folder, os.O_RDONLY | os.O_DIRECTORY, lambda folder: _remove_tree(folder, ended))


def _remove_tree(folder: Path, ended: Callable[[], bool]) -> None:
    # By descriptors: a link that is put there meanwhile must not lead root elsewhere.
    for _, folders, files, fd in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            if ended():
                return
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                os.rmdir(name, dir_fd=fd)
    folder.rmdir()


def _found(root: Path, pattern: str) -> list[Path]:
    with suppress(OSError):
        return list(root.glob(pattern))
    return []


def _remove(left: Path, how: int, remove: Callable[[Path], None]) -> None:
    with suppress(OSError), locked(left, how, fcntl.LOCK_EX | fcntl.LOCK_NB):
        if left.stat().st_mtime < time.time() - _JUST_MADE_S:
            remove(left)


@contextmanager
def workplace(root: Path) -> Iterator[Path]:
    """A folder below `root` for one job, gone afterwards.

    Raises:
        NoSpace: the disk does not take it.
        Unavailable: it cannot be made for another reason.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=_JOB, dir=root)
    except OSError as error:
        fault = NoSpace if error.errno in FULL else Unavailable
        raise fault(f"{root} takes nothing that work on it needs: {error.strerror}") from error
    with made, locked(Path(made.name), os.O_RDONLY | os.O_DIRECTORY, fcntl.LOCK_SH):
        yield Path(made.name)


@contextmanager
def locked(path: Path, how: int, lock: int) -> Iterator[None]:
    """Hold `lock` on what is there, opened as `how` says; never on a link. Raises OSError where that cannot be."""
    fd = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, lock)
        yield
    finally:
        os.close(fd)
