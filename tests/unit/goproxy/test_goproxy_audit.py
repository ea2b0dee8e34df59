"""An audit looks at every file, whatever the storage does with some of them."""

import errno
from dataclasses import dataclass

import pytest

from mooring.errors import Unavailable
from mooring.goproxy.audit import Finding, audit
from mooring.goproxy.memory import MemoryBlob, MemoryStore

GOOD, BAD = (f"example.com/{name}/@v/v1.0.0.info" for name in ("good", "bad"))


@dataclass(slots=True)
class _BadBlob(MemoryBlob):
    """A file that opens and cannot be read."""

    error: Exception

    async def read(self, start: int, length: int) -> bytes:  # noqa: ARG002 - the port's parameters
        raise self.error


class BadStore(MemoryStore):
    """One file of it cannot be had."""

    def __init__(self, opening: Exception | None, reading: Exception | None) -> None:
        super().__init__()
        self._opening = opening
        self._reading = reading

    async def open(self, name: str) -> MemoryBlob | None:
        if name == BAD and self._opening is not None:
            raise self._opening
        found = await super().open(name)
        if name == BAD and found is not None and self._reading is not None:
            return _BadBlob(found.data, found.modified, self._reading)
        return found


@pytest.mark.parametrize(
    ("opening", "reading", "expected"),
    [
        (Unavailable("permission denied"), None, Finding(BAD, "cannot be read: permission denied", unsure=True)),
        (None, Unavailable("no answer"), Finding(BAD, "cannot be read: no answer", unsure=True)),
        (None, OSError(errno.EIO, "Input/output error"), Finding(BAD, "cannot be read: Input/output error")),
    ],
)
async def test_a_file_that_cannot_be_read_hides_no_other(
    opening: Exception | None, reading: Exception | None, expected: Finding
) -> None:
    """A disk that fails is named as wrong, a storage that does not answer as unsure, and the rest is hashed."""
    store = BadStore(opening, reading)

    async def recorded(_module: str, _version: str) -> str | None:
        return None

    for name in (BAD, GOOD):
        await store.put(name, b'{"Version":"v1.0.0"}')
    assert [finding async for finding in audit(store, recorded)] == [expected, Finding(GOOD)]
