"""What the proxy needs: a place to keep files, sources to fetch from, and somebody who knows the right hashes."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from mooring.goproxy.flight import Flight
from mooring.goproxy.names import Ask


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the store. Times in seconds since the epoch; `used` is when it was last read, about."""

    name: str
    size: int
    modified: float
    used: float


class Blob(Protocol):
    """An open file of the store: it stays readable while it is evicted or replaced. Close it."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def modified(self) -> float:
        """When it was saved, in seconds since the epoch."""

    @property
    def descriptor(self) -> int | None:
        """An open file that holds exactly this, which the kernel can send; None where there is none."""

    async def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`; empty only at the end."""

    async def file(self) -> IO[bytes]:
        """A file object of its own, from the beginning; blocking to read. Close it too."""

    def close(self) -> None:
        """Let go of it. Twice is once."""


@dataclass(slots=True)
class Answer:
    """What to send: a stored file, a file on its way, or bytes. `outcome` is for the log and the counters."""

    outcome: str
    blob: Blob | None = None
    flight: Flight | None = None
    data: bytes = b""

    def close(self) -> None:
        """Let go of the file. Once."""
        if self.blob is not None:
            self.blob.close()
        if self.flight is not None:
            self.flight.leave()


class Store(Protocol):
    """Files by name, below the layout of `GOMODCACHE/cache/download`. Visible only when complete.

    Raises:
        NoSpace: nothing more can be saved.
        Unavailable: the storage does not answer.
    """

    async def open(self, name: str) -> Blob | None:
        """The file, None when there is none."""

    async def put(self, name: str, data: bytes) -> None:
        """Save or replace a small file."""

    async def adopt(self, name: str, file: Path) -> None:
        """Take over a complete file of the spool, which is gone afterwards."""


class Inventory(Protocol):
    """What evicts, verifies and lists needs of a store beyond serving."""

    def entries(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Every file whose name begins with `prefix`, in no order."""

    async def remove(self, name: str) -> None:
        """Remove a file; no error when it is not there."""


class FullStore(Store, Inventory, Protocol):
    """Both."""

    async def healthy(self) -> None:
        """Pass when files can be saved and read; raise as `Store` otherwise."""


@dataclass(frozen=True, slots=True)
class Download:
    """A zip on its way: its size where the source says it, and its bytes."""

    size: int | None
    chunks: AsyncIterator[bytes]


class Source(Protocol):
    """Where modules come from.

    Raises:
        NotFound: the source proved that it does not exist.
        UpstreamRefused: the source refuses it.
        BadUpstream: the answer is not one of the protocol.
        Unavailable: no answer, or one that says nothing about whether it exists.
    """

    async def small(self, ask: Ask) -> bytes:
        """A list, latest, info or mod, as the protocol has it."""

    def zip(self, ask: Ask) -> AbstractAsyncContextManager[Download]:
        """A module's zip. Errors may come while it is read."""


class Remote(Protocol):
    """Where a checksum database is reached. Raises as `Source`."""

    async def get(self, path: str) -> bytes:
        """The file `lookup/…`, `tile/…` or `latest`."""


class Verification(Protocol):
    """Who knows the right hash of each module version."""

    records: bool
    """Whether a check makes what it is given the right hash for ever: nothing is checked then that nobody asked for."""

    async def prepare(self, module: str, version: str) -> None:
        """Look the hash up ahead, while the file is still on its way. Never raises a MooringError."""

    async def check(self, module: str, version: str, h1: str) -> None:
        """Pass when `h1` is the hash of `version` (or of `version/go.mod`).

        Raises:
            Mismatch: it is another one, or nobody can vouch for it.
            Unavailable: the database does not answer.
        """
