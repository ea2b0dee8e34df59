# ruff: noqa: PTH103, PTH108, PTH116, PTH123, PTH208 - pathlib would cost each keeper a megabyte
"""The output of a workspace: append-only files that rotate by size, read by absolute offset.

A file is named for the offset of its first byte, so an offset finds its place with nothing else kept, across
rotations, restarts and kills of everybody. The editor writes into a FIFO that it holds open itself, and the keeper
copies from it into the files: rotation cannot lose a byte (copy-and-truncate can), and an editor whose keeper was
killed does not meet a closed pipe; the next keeper goes on where the last one ended.

Also imported by the keeper: no typing, no dataclasses, no asyncio here.
"""

import os

SEGMENT_BYTES = 8 * 2**20
SEGMENTS = 2
PENDING_BYTES = 256 * 1024
_SUFFIX = ".log"


def segments(folder: str) -> list[int]:
    """The offsets at which the kept files begin, oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def path_of(folder: str, start: int) -> str:
    """The file that begins at `start`."""
    return f"{folder}/{start:020d}{_SUFFIX}"


def read_at(folder: str, offset: int, limit: int = 65536) -> tuple[int, bytes]:
    """At most `limit` bytes from `offset` (or the oldest kept byte after it), with the offset behind them.

    An offset behind the end, as one from before a backup was restored, is taken for the end.
    """
    starts = segments(folder)
    for position, start in enumerate(starts):
        is_last = position == len(starts) - 1
        if not is_last and offset >= starts[position + 1]:
            continue
        at = max(offset, start)
        try:
            with open(path_of(folder, start), "rb") as file:
                if is_last:
                    at = min(at, file.seek(0, os.SEEK_END) + start)
                file.seek(at - start)
                data = file.read(limit)
        except FileNotFoundError:
            continue  # rotated away since it was listed
        if data or is_last:
            return at + len(data), data
    return offset, b""


def end_of(folder: str) -> int:
    """The offset behind the last kept byte."""
    starts = segments(folder)
    return starts[-1] + os.stat(path_of(folder, starts[-1])).st_size if starts else 0


def last_lines(folder: str, lines: int = 5, limit: int = 1024) -> str:
    """The end of the output, for a person."""
    try:
        end = end_of(folder)
        _, data = read_at(folder, max(0, end - limit))
    except OSError:
        return ""
    return "\n".join(data.decode(errors="replace").splitlines()[-lines:])


def written_since(folder: str, offset: int, limit: int = 4096) -> bytes:
    """The end of what was written behind `offset`; empty when that cannot be read."""
    try:
        return read_at(folder, max(offset, end_of(folder) - limit))[1]
    except OSError:
        return b""


_TAKE_BYTES = 65536


class Log:
    """Appends. A full disk is waited out with a bounded part in memory; what exceeds it is counted and said."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file = -1
        self._start = 0
        self._size = 0
        self._pending = bytearray()
        self._dropped = 0
        self.error = ""

    @property
    def waiting(self) -> bool:
        """Whether something could not be written yet: call `flush` again later."""
        return bool(self._pending)

    def append(self, data: bytes) -> None:
        """Write `data` behind what is there."""
        room = PENDING_BYTES - len(self._pending)
        self._pending += data[: max(0, room)]
        self._dropped += max(0, len(data) - room)
        self.flush()

    def take(self, pipe: int) -> None:
        """Move what is in `pipe` behind what is there, in one system call: a kill between two would lose it.

        Raises:
            BlockingIOError: the pipe is empty.
        """
        if not self._pending:
            try:
                self._rotate()
                self._size += os.splice(pipe, self._file, _TAKE_BYTES)
            except BlockingIOError:
                raise
            except OSError:
                # A full disk, or a file system without splice: it waits in memory, as every other output.
                pass
            else:
                return
        self.append(os.read(pipe, _TAKE_BYTES))

    def flush(self) -> None:
        """Write what waits; the reason for what still does is in `error`."""
        try:
            self._write()
            if self._dropped:
                self._pending += f"\n[mooring] {self._dropped} bytes of output were lost: {self.error}\n".encode()
                self._dropped = 0
                self._write()
            self.error = ""
        except OSError as error:
            self.error = error.strerror or str(error)

    def close(self) -> None:
        """Let go of the file; a later append opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self) -> None:
        while self._pending:
            self._rotate()
            # A short write is how a disk says that it is nearly full: only what was written leaves the memory.
            written = os.write(self._file, self._pending)
            self._size += written
            del self._pending[:written]

    def _rotate(self) -> None:
        if self._file >= 0 and self._size < SEGMENT_BYTES:
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        kept = segments(self._folder)
        start = kept[-1] if self._file < 0 and kept else self._start + self._size
        file = os.open(path_of(self._folder, start), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Not O_APPEND, which splice(2) refuses; the keeper's lock sees to it that nobody else writes.
        os.lseek(file, 0, os.SEEK_END)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._start, self._size = file, start, os.fstat(file).st_size
        for old in segments(self._folder)[:-SEGMENTS]:
            os.unlink(path_of(self._folder, old))
