"""Whether a file was written since somebody looked."""

import os
from pathlib import Path

Stamp = tuple[int, int, int]
"""Inode, moment of the last change in nanoseconds, and bytes of a file: another one whenever it was written."""


def stamp(file: Path) -> Stamp | None:
    """The file's stamp, None when there is none or nobody lets us look."""
    try:
        status = os.stat(file)  # noqa: PTH116 - for every request
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
