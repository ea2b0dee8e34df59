"""A file system of a few megabytes, so that a test can really fill one. Needs root, as the tests have it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    """Mounted at `folder`."""

    folder: Path

    def fill(self, leave: int = 0) -> None:
        """Take all of the room but `leave` bytes."""
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            while (free := self.free()) > leave:
                try:
                    filler.write(b"\0" * min(free - leave, 65536))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def clear(self) -> None:
        """Give the room back."""
        (self.folder / "filler").unlink()

    def refuse_writes(self) -> None:
        """Make it read-only, as the kernel does after an error."""
        self._remount("ro")

    def take_writes(self) -> None:
        """Make it writable again."""
        self._remount("rw")

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)

    def free(self) -> int:
        """Bytes that can still be written."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounted until the end of the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "test", folder], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", folder], check=True)
