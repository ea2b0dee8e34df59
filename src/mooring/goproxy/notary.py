"""Our own checksum database: the first hash seen of a module version is recorded, another one is refused for ever.

It vouches for what the public database does not know: private modules. A public module enters when the public
database has confirmed it. The go command reads the same log by `GOSUMDB=NAME+KEY`, as it reads the public one.

A version whose go.mod alone was seen has a record of one line; the record that a look-up answers with has both.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import structlog

from mooring.errors import NotFound
from mooring.goproxy import tlog
from mooring.goproxy.faults import Mismatch, NoSpace
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.names import parse_lookup

log = structlog.get_logger(__name__)

_MOD = "/go.mod"
Hashes = tuple[str, str]
"""Of the zip and of its go.mod."""


class Notary:
    """A `Verification`, and a checksum database to be asked. Belongs to one event loop."""

    records = True

    def __init__(self, ledger: Ledger, mod_hash: Callable[[str, str], Awaitable[str]]) -> None:
        """`mod_hash(module, version)` is the verified hash of the go.mod of a zip that is about to be recorded."""
        self._ledger = ledger
        self._mod_hash = mod_hash
        self._hashes: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._indexed = 0
        self._waiting: list[bytes] = []
        self._writing = asyncio.Lock()
        self._mutex = threading.Lock()
        self.refused = 0
        """How often a module came with another hash than the first one."""
        self._index()

    @property
    def name(self) -> str:
        return self._ledger.signer.name

    @property
    def key(self) -> str:
        """What belongs into GOSUMDB."""
        return self._ledger.signer.verifier.text

    async def prepare(self, module: str, version: str) -> None:
        """Everything is here."""

    async def check(self, module: str, version: str, h1: str) -> None:
        recorded = self._hashes.get(f"{module} {version}")
        if recorded is None:
            await self.record(module, version, h1)
            recorded = self._hashes[f"{module} {version}"]
        if recorded != h1:
            self.refused += 1
            log.error("another content than the first", module=module, version=version, first=recorded, now=h1)
            raise Mismatch(
                f"{module}@{version}: checksum mismatch: downloaded {h1}, but the notary {self.name} first saw "
                f"{recorded}. Somebody changed a published version."
            )

    def recorded(self, module: str, version: str) -> str | None:
        """The hash of a version, or of `VERSION/go.mod`; None when it was never seen."""
        return self._hashes.get(f"{module} {version}")

    async def record(self, module: str, version: str, h1: str) -> None:
        """Record a hash that is the first; one that is recorded meanwhile stays."""
        line = f"{module} {version} {h1}\n"
        if not version.endswith(_MOD):
            line += f"{module} {version}{_MOD} {await self._mod_hash(module, version)}\n"
        await self._append(line.encode())

    async def knows(self, module: str, version: str) -> bool:
        """Whether a look-up can be answered."""
        if f"{module} {version}" not in self._hashes:
            await asyncio.to_thread(self._catch_up)
        return f"{module} {version}" in self._hashes

    async def add(self, module: str, version: str, hashes: Hashes) -> None:
        """Record what the public database confirmed."""
        if await self.knows(module, version):
            return
        first, mod = hashes
        await self._append(f"{module} {version} {first}\n{module} {version}{_MOD} {mod}\n".encode())

    async def get(self, path: str) -> bytes:
        """A file of the log: `latest`, `lookup/MODULE@VERSION` of what is known, `tile/…`.

        Raises:
            NotFound: there is none.
        """
        if path == "latest":
            await asyncio.to_thread(self._catch_up)
            return self._ledger.head
        if path.startswith("lookup/"):
            return await self._lookup(*parse_lookup(path))
        found = self._ledger.tile(tlog.parse_tile(path))
        if found is None:
            await asyncio.to_thread(self._catch_up)
            found = self._ledger.tile(tlog.parse_tile(path))
        if found is None:
            raise NotFound("the log is not that long")
        return found

    async def _lookup(self, module: str, version: str) -> bytes:
        if not await self.knows(module, version):
            raise NotFound(f"{module}@{version} is not recorded")
        number = self._numbers[f"{module} {version}"]
        return f"{number}\n".encode() + self._ledger.record(number) + b"\n" + self._ledger.head

    async def _append(self, text: bytes) -> None:
        """Append with whoever else waits: one write to the disk for all of them."""
        self._waiting.append(text)
        async with self._writing:
            if text in self._waiting:
                texts, self._waiting = list(dict.fromkeys(self._waiting)), []
                await asyncio.to_thread(self._write, texts)
        if not self._superfluous(text):
            raise NoSpace("the notary could not record this version: its disk takes no more")

    def _catch_up(self) -> None:
        with self._mutex:
            self._ledger.catch_up()
            self._index()

    def _write(self, texts: list[bytes]) -> None:
        try:
            with self._mutex, self._ledger.exclusive():
                self._index()
                new = [text for text in texts if not self._superfluous(text)]
                if new:
                    self._ledger.append(new)
                    self._index()
        except OSError as error:
            # Of the lock, too: a disk that became read-only does not even lend that.
            raise NoSpace(f"the notary's disk takes no more: {error.strerror}") from error

    def _superfluous(self, text: bytes) -> bool:
        """Whether somebody, in this process or another, was first with the version."""
        subjects = [line.rpartition(" ")[0] for line in text.decode().splitlines()]
        return subjects[0] in self._hashes

    def _index(self) -> None:
        for number, text in enumerate(self._ledger.records(self._indexed), self._indexed):
            for line in text.decode().splitlines():
                subject, _, h1 = line.rpartition(" ")
                if not subject.endswith(_MOD):
                    self._numbers.setdefault(subject, number)
                # Last: whoever finds it here, in another thread, looks for the number.
                self._hashes.setdefault(subject, h1)
        self._indexed = self._ledger.size
