"""The bare clones that the go command keeps, one for each repository, and their bound. Blocking.

A clone saves time and nothing else: the next request for one of its modules makes it again. Whoever runs the go command
holds the lock shared, so that no clone is taken away below a run, in this process or another one.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_GONE = ".gone-"


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone: the bytes of its files, and when a run that used it ended, in seconds since the epoch."""

    folder: Path
    size: int
    used: float


class Clones:
    """Those below `folder`, the go command's `cache/vcs`; `lock` is a file beside it."""

    def __init__(self, folder: Path, lock: Path) -> None:
        self._folder = folder
        self._lock = lock

    def hold(self) -> int:
        """Keep all of them until this descriptor is closed, also by the processes that inherited it."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def used(self, url: str) -> None:
        """The clone of the repository at `url` was used just now. The go command writes the URL beside each clone."""
        for info in self._folder.glob("*.info"):
            with contextlib.suppress(FileNotFoundError):
                if info.read_text().strip().partition(":")[2] == url:
                    os.utime(info)

    def all(self) -> list[Clone]:
        """Every clone, the one that was used longest ago first."""
        found = []
        for info in self._folder.glob("*.info"):
            with contextlib.suppress(FileNotFoundError):
                folder = info.with_suffix("")
                found.append(Clone(folder, _size(folder), info.stat().st_mtime))
        return sorted(found, key=lambda clone: clone.used)

    def shrink(self, max_bytes: int) -> list[Clone]:
        """Remove clones until the others have at most `max_bytes`; those removed, none while another process runs."""
        clones = self.all()
        total, gone = sum(clone.size for clone in clones), []
        for clone in clones:
            if total > max_bytes:
                total -= clone.size
                gone.append(clone)
        if gone and not self._set_aside(gone):
            return []
        self.sweep()
        return gone

    def sweep(self) -> None:
        """Remove what was set aside, also by a process that was killed then: it is counted nowhere."""
        for folder in self._folder.glob(f"*{_GONE}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def locks(self) -> list[Path]:
        """Git's. What is there while nobody holds the clones a killed run left, and the next fetch would fail."""
        found = (
            Path(folder, name)
            for clone in self._folder.glob("*/")
            for folder, _, names in os.walk(clone)
            for name in names
        )
        return [file for file in found if file.suffix == ".lock"]

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody holds them, here or in another process; then nobody will before the end of the block."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def _set_aside(self, clones: list[Clone]) -> bool:
        """Rename them, which takes no time; False when somebody uses one."""
        with self.alone() as alone:
            for clone in clones if alone else ():
                with contextlib.suppress(FileNotFoundError):
                    clone.folder.rename(f"{clone.folder}{_GONE}{secrets.token_hex(6)}")
                clone.folder.with_suffix(".info").unlink(missing_ok=True)
        return alone


def _size(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{parent}/{name}").st_size
    return total
