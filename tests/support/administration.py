"""A module proxy's administration on a stage: a store in memory, counts, pins, and an upstream that says yes or no."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import AF_UNIX, socket

from mooring.control.clock import SystemClock
from mooring.errors import Conflict, MooringError
from mooring.goproxy.access import Subject
from mooring.goproxy.catalog import Catalog
from mooring.goproxy.eviction import Eviction
from mooring.goproxy.memory import MemoryStore
from mooring.goproxy.names import Ask, Kind, ask, matches_any
from mooring.goproxy.operations import Operations, Parts
from mooring.goproxy.operations_app import OperationsApp
from mooring.goproxy.pins import Pins
from mooring.goproxy.tallies import Tallies
from mooring.server.door import answering

PRIVATE = ("git.corp.example",)
EVERYTHING = Subject("root", ("*",))


@dataclass
class Modules:
    """What a test arranges and looks at. `gone` are the versions that no upstream offers any more."""

    store: MemoryStore
    catalog: Catalog
    tallies: Tallies
    pins: Pins
    operations: Operations
    gone: set[str] = field(default_factory=set)

    async def keep(self, module: str, version: str, *, size: int = 1000, info: bytes = b"") -> None:
        """Have a version in the store."""
        wanted = ask(module, version, Kind.zip)
        await self.store.put(wanted.name, b"x" * size)
        await self.store.put(f"{wanted.name}hash", b"h1:abc=\n")
        await self.store.put(wanted.sibling(Kind.mod).name, b"module x\n")
        await self.store.put(wanted.sibling(Kind.info).name, info or b'{"Version":"%s"}' % version.encode())
        self.catalog.forget()

    async def has(self, module: str, version: str, kind: Kind = Kind.zip) -> bool:
        """Whether a file is kept."""
        return await self.store.open(ask(module, version, kind).name) is not None


def modules(folder: Path) -> Modules:
    """An empty proxy whose pins are below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    store, tallies, pins = MemoryStore(), Tallies(), Pins(folder / "pins")
    gone: set[str] = set()

    async def returns(wanted: Ask) -> None:
        if matches_any(PRIVATE, wanted.module):
            raise Conflict("only the notary vouches for it")
        if wanted.label in gone:
            raise MooringError("the upstream has it no more")

    catalog = Catalog(store, SystemClock())
    parts = Parts(
        store,
        catalog,
        tallies,
        pins,
        Eviction(store, pins, returns),
        is_private=lambda module: matches_any(PRIVATE, module),
        vouches=lambda module: "the notary" if matches_any(PRIVATE, module) else "sum.test.example",
        sumdb="sum.mooring.internal+1234abcd+key",
        max_bytes=10**9,
    )
    return Modules(store, catalog, tallies, pins, Operations(parts), gone)


@asynccontextmanager
async def administered(operations: Operations, folder: Path) -> AsyncIterator[Path]:
    """The administration's socket, as a real server offers it."""
    path = folder / "admin.sock"
    with socket(AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        async with answering(OperationsApp(operations), listener):
            yield path
