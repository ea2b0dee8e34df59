"""The store on a local disk: below `root/cache/download` exactly what the go command keeps below GOMODCACHE.

So a module cache can be copied in, and the folder can be served as `GOPROXY=file://…`. A file is written into the
spool on the same file system, flushed, and renamed: a reader sees all of it or nothing, whatever is killed when.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from mooring.errors import Unavailable
from mooring.goproxy import leftovers
from mooring.goproxy.faults import FULL, NoSpace
from mooring.goproxy.ports import Entry

_READ_AGAIN_S = 3600.0
_BELIEVED_S = 60.0
"""A disk that took a file is believed to take another one for so long, unless it is full or read-only by then."""
_SMALL = 256 * 1024
"""Bytes that are held in memory for one client: nine zips of ten are no larger."""
# The go command's own bookkeeping beside the files; nothing of it is ours to serve.
_NOT_OURS = (".lock", ".partial", ".tmp")


class DiskBlob:
    """An open file."""

    __slots__ = ("_fd", "modified", "size")

    def __init__(self, fd: int, size: int, modified: float) -> None:
        self._fd = fd
        self.size = size
        self.modified = modified

    async def read(self, start: int, length: int) -> bytes:
        # From the page cache nearly always: a thread would cost more than the read.
        return os.pread(self._fd, length, start)

    async def file(self) -> IO[bytes]:
        # By way of /proc it has an offset of its own; a duplicate would share this one's.
        return await asyncio.to_thread(open, f"/proc/self/fd/{self._fd}", "rb")

    @property
    def descriptor(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        """A response that was cut off before it began never closes its file."""
        self.close()


class DiskStore:
    """A `FullStore` below `root`. Several processes may use one folder at a time."""

    def __init__(self, root: Path) -> None:
        self._download = root / "cache" / "download"
        self.spool = root / leftovers.SPOOL
        self._saved_at = float("-inf")

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            Unavailable: the folders cannot be made.
        """
        try:
            self._download.mkdir(parents=True, exist_ok=True)
            self.spool.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _translated(error) from error

    async def healthy(self) -> None:
        # Asked every two seconds for ever: to write a file each time would keep an idle disk awake.
        try:
            if time.monotonic() - self._saved_at > _BELIEVED_S or not _has_room(self.spool):
                await asyncio.to_thread(self._try)
        except OSError as error:
            raise _translated(error) from error

    def _try(self) -> None:
        file = self.spool / secrets.token_hex(12)
        try:
            file.write_bytes(b"x")
        finally:
            _gone(file)
        self._saved_at = time.monotonic()

    def small(self, name: str) -> bytes | None:
        """The whole of a file of at most 256 KiB, None where there is none, or another one. Raises as `open`."""
        blob = self._opened(name)
        if blob is None:
            return None
        try:
            # An empty one lost its bytes in a crash of the machine.
            if not 0 < blob.size <= _SMALL:
                return None
            data = os.pread(blob.descriptor, blob.size, 0)
            # Emptied or cut in between: a part of a zip would be told as the whole.
            return data if len(data) == blob.size else None
        except OSError as error:
            raise _translated(error) from error
        finally:
            blob.close()

    async def open(self, name: str) -> DiskBlob | None:
        return self._opened(name)

    def _opened(self, name: str) -> DiskBlob | None:
        path = f"{self._download}/{name}"
        try:
            # A pipe that somebody put there would be waited for, by the whole process.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                return None
            raise _translated(error) from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return None
        now = time.time()
        if now - max(status.st_atime, status.st_mtime) > _READ_AGAIN_S:
            # File systems mounted with noatime would make everything look unread to the eviction.
            # What an administrator copied in as another user is served, and then as old as the kernel says.
            with contextlib.suppress(OSError):
                os.utime(fd, ns=(int(now * 1e9), status.st_mtime_ns))
        return DiskBlob(fd, status.st_size, status.st_mtime)

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, name, data)

    def _put(self, name: str, data: bytes) -> None:
        file = f"{self.spool}/{secrets.token_hex(12)}"
        try:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # What is not locked is what a killed process left behind.
                fcntl.flock(fd, fcntl.LOCK_EX)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                self._place(name, file, fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._saved_at = float("-inf")
            _gone(Path(file))
            raise _translated(error) from error

    async def adopt(self, name: str, file: Path) -> None:
        try:
            await asyncio.to_thread(self._adopt, name, file)
        except OSError as error:
            self._saved_at = float("-inf")
            raise _translated(error) from error

    def _adopt(self, name: str, file: Path) -> None:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._place(name, str(file), fd)
        finally:
            os.close(fd)

    def _place(self, name: str, file: str, fd: int) -> None:
        # A rename may reach the disk before the bytes do: after a power cut the file would be there, and empty.
        os.fdatasync(fd)
        # The index has what came by this moment: verifying a zip takes seconds in which nobody sees it.
        os.utime(fd)
        os.fchmod(fd, 0o644)
        target = f"{self._download}/{name}"
        try:
            os.replace(file, target)  # noqa: PTH105 - several for every cold module
        except FileNotFoundError:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)  # noqa: PTH105
        self._saved_at = time.monotonic()

    async def entries(self, prefix: str = "") -> AsyncIterator[Entry]:
        folder, _, start = f"{self._download}/{prefix}".rpartition("/")
        walk = self._walk(Path(folder), start)
        while batch := await asyncio.to_thread(_some, walk):
            for entry in batch:
                yield entry

    def _walk(self, folder: Path, start: str = "") -> Iterator[Entry]:
        try:
            found = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for item in found:
            if not item.name.startswith(start):
                continue
            if item.is_dir(follow_symlinks=False):
                yield from self._walk(Path(item.path))
            elif item.is_file(follow_symlinks=False) and not item.name.endswith(_NOT_OURS):
                try:
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                name = os.path.relpath(item.path, self._download)
                yield Entry(name, status.st_size, status.st_mtime, max(status.st_atime, status.st_mtime))

    async def remove(self, name: str) -> None:
        try:
            await asyncio.to_thread((self._download / name).unlink, missing_ok=True)
        except OSError as error:
            raise _translated(error) from error


def _some(walk: Iterator[Entry]) -> list[Entry]:
    try:
        return [entry for _, entry in zip(range(512), walk, strict=False)]
    except OSError as error:
        raise Unavailable(f"{error.filename} cannot be listed: {error.strerror}") from error


def _has_room(folder: Path) -> bool:
    found = os.statvfs(folder)
    # Btrfs counts no inodes, and says that it has none.
    inodes = found.f_favail > 0 or found.f_files == 0
    return found.f_bavail > 0 and inodes and not found.f_flag & os.ST_RDONLY


def _gone(file: Path) -> None:
    """What cannot be removed now is left to the next sweep; it must not hide the error that led here."""
    with contextlib.suppress(OSError):
        file.unlink()


def _translated(error: OSError) -> Unavailable:
    if error.errno in FULL:
        return NoSpace(f"the proxy's disk takes no more: {error.strerror}")
    return Unavailable(f"the proxy's store fails: {error.strerror}")
