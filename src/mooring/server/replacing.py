"""A file that takes the place of another one whole, in a folder that is somebody else's."""

import asyncio
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

from mooring.errors import InvalidInput
from mooring.goproxy.leftovers import locked


@asynccontextmanager
async def replacing(to: Path) -> AsyncIterator[IO[bytes]]:
    """A new file that takes the place of `to` when the block succeeds; what killed ones left for `to` goes before.

    Raises:
        InvalidInput: `to` is there, and no file.
        OSError: it cannot be written.
    """
    target = _target(to)
    # First: it may be all that the disk has no room for.
    await asyncio.to_thread(_sweep, target)
    beside, file = _made(target)
    with file:
        try:
            yield file
            # A crash of the machine after the rename would leave neither the new content nor the old.
            await asyncio.to_thread(_flush, file)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def _target(to: Path) -> Path:
    target = to.resolve()
    if target.exists() and not target.is_file():
        # Renamed over a device it would be the end of it.
        raise InvalidInput(f"{to} cannot be written: it is there, and no file", field="to")
    return target


def _beside(target: Path, which: str) -> str:
    # Not the name itself: with more around it, it may be too long for a file.
    return f".mooring-export-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-{which}.part"


def _sweep(target: Path) -> None:
    """Remove what nobody writes any more. Who may not write it, or where nothing can be locked, leaves it."""
    with suppress(OSError):
        for left in list(target.parent.glob(_beside(target, "*"))):
            with suppress(OSError), locked(left, os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB):
                left.unlink()


def _made(target: Path) -> tuple[Path, IO[bytes]]:
    """One that is locked for as long as it is open, which ends with its process."""
    while True:
        beside = target.with_name(_beside(target, secrets.token_hex(8)))
        file = beside.open("xb")
        # A file system without locks has none for a sweep either.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # A sweep may have come between: the work of hours would have no name in the end.
        if beside.exists():
            return beside, file
        file.close()


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
