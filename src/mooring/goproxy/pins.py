"""What is never evicted because somebody said so: a file of `MODULE` and `MODULE@VERSION` patterns, one a line."""

import asyncio
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mooring.errors import Conflict, InvalidInput, NotFound, Unavailable
from mooring.goproxy import semver
from mooring.goproxy.names import check_elements, matches_any

_GLOB = re.compile(r"[*?]|\[!?+[^\]/]+\]")
_GLOBBED = "x.x"
"""Fits wherever a glob may stand: a host has a dot, and no other element is the worse for one."""


class Pins:
    """The pins in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def all(self) -> list[str]:
        """Every pin, sorted. Raises Unavailable: they cannot be read, and anything may be pinned."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[str]:
        try:
            return sorted({line.strip() for line in self._file.read_text().splitlines() if line.strip()})
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self._file} cannot be read: {error}") from error

    async def add(self, pin: str) -> None:
        """Pin a module pattern, or one version of it.

        Raises:
            InvalidInput: nothing that is kept could ever be meant by it; says why.
            Unavailable: the disk takes no more.
        """
        _check(pin)
        await asyncio.to_thread(self._change, {pin}, set())

    async def remove(self, pin: str) -> None:
        """Unpin; no error when it is not pinned.

        Raises:
            Conflict: a wider pin covers it; says which.
            Unavailable: the disk takes no more.
        """
        await asyncio.to_thread(self._change, set(), {pin})
        module, _, version = pin.partition("@")
        if wider := covering(await self.all(), module, version):
            raise Conflict(f"{pin} stays pinned by {wider}: unpin that one")

    def _change(self, more: set[str], less: set[str]) -> None:
        try:
            with self._alone():
                self._write({*self._read()} - less | more)
        except OSError as error:
            raise Unavailable(f"the pins cannot be saved: {error.strerror}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two that read, change and write at the same time would lose one's pin."""
        fd = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, pins: set[str]) -> None:
        # One name, which what a killed process left goes by, too: it may be another user's, who cannot be written over.
        temporary = self._file.with_name(f".{self._file.name}.new")
        temporary.unlink(missing_ok=True)
        try:
            temporary.write_text("".join(f"{pin}\n" for pin in sorted(pins)))
            temporary.replace(self._file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _check(pin: str) -> None:
    """Raise InvalidInput for a pin that would protect nothing: nobody would notice before the eviction."""
    pattern, at, version = pin.partition("@")
    if not pattern or any(c.isspace() for c in pin):
        raise InvalidInput("a pin is MODULE or MODULE@VERSION, without spaces", field="pin")
    if at and not semver.is_canonical(version):
        raise InvalidInput(f"{version!r} in a pin must be a whole version, as v1.2.3", field="pin")
    try:
        check_elements(_GLOB.sub(_GLOBBED, pattern.rstrip("/")))
    except NotFound as error:
        raise InvalidInput(f"{pattern!r} covers no module: {error.detail.partition(': ')[2]}", field="pin") from error


def covering(pins: list[str], module: str, version: str = "") -> str:
    """The pin that covers a version, or a module as a whole; empty when none does."""
    for pin in pins:
        pattern, _, only = pin.partition("@")
        if only in ("", version) and matches_any((pattern,), module):
            return pin
    return ""
