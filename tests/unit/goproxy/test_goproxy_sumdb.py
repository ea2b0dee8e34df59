"""The checksum database's client on logs of every shape: heads that grow, tiles of several levels, and forks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mooring.control.tasks import Tasks
from mooring.errors import MooringError, NotFound, Unavailable
from mooring.goproxy import tlog
from mooring.goproxy.databases import DatabaseAddress
from mooring.goproxy.faults import BadNote, BadTree, BadUpstream
from mooring.goproxy.flight import Once
from mooring.goproxy.keeping import keep, read
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.memory import MemoryStore
from mooring.goproxy.note import check
from mooring.goproxy.sumdb import SumDB
from mooring.goproxy.tlog import Tile

SIZES = [1, 2, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 66_000]


def record(number: int) -> bytes:
    """The text of a record."""
    return f"example.com/m v1.{number}.0 h1:zip{number}\nexample.com/m v1.{number}.0/go.mod h1:mod{number}\n".encode()


class FromLedger:
    """A `Remote` that reads a ledger; `changed` are answers that lie."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.changed: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.without_partial = False

    async def get(self, path: str) -> bytes:
        self.asked.append(path)
        if path in self.changed:
            return self.changed[path]
        if path == "latest":
            return self.ledger.head
        if path.startswith("lookup/"):
            number = int(path.partition("@v1.")[2].partition(".")[0])
            if number >= self.ledger.size:
                raise NotFound("not recorded")
            return f"{number}\n".encode() + self.ledger.record(number) + b"\n" + self.ledger.head
        tile = tlog.parse_tile(path)
        found = None if self.without_partial and not tile.full else self.ledger.tile(tile)
        if found is None:
            raise NotFound("no such tile")
        return found


def grow(ledger: Ledger, size: int) -> None:
    """Append until the log has `size` records."""
    with ledger.exclusive():
        ledger.append([record(number) for number in range(ledger.size, size)])


@pytest.fixture
async def once() -> AsyncIterator[Once]:
    """Whose tasks end with the test."""
    async with Tasks("test") as tasks:
        yield Once(tasks)


async def test_every_record_is_proved_while_the_log_grows(tmp_path: Path, once: Once) -> None:
    """At each size the first, the last and some records between are proved, by one client that saw all heads."""
    remote = FromLedger(Ledger(tmp_path, "sum.example"))
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)
    for size in SIZES:
        grow(remote.ledger, size)
        for number in {0, size // 3, size // 2, max(0, size - 2), size - 1}:
            found = await database.hashes("example.com/m", f"v1.{number}.0")
            assert found == (f"h1:zip{number}", f"h1:mod{number}")
    with pytest.raises(NotFound):
        await database.hashes("example.com/m", "v1.99999999.0")


async def test_a_new_client_begins_anywhere(tmp_path: Path, once: Once) -> None:
    """A client that never saw a head proves a record of a large log, and older heads afterwards."""
    ledger = Ledger(tmp_path, "sum.example")
    heads = []
    for size in SIZES:
        grow(ledger, size)
        heads.append(ledger.head)
    remote = FromLedger(ledger)
    database = SumDB(ledger.signer.verifier, remote, MemoryStore(), once)
    assert await database.hashes("example.com/m", "v1.4711.0") == ("h1:zip4711", "h1:mod4711")
    for head in reversed(heads):
        remote.changed["latest"] = head
        assert await database.latest() == head


class InWaves(FromLedger):
    """Answers all that was asked for once nobody goes on without an answer: `waves` are ways there and back."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.waves = 0
        self.waiting: list[asyncio.Future[None]] = []

    async def get(self, path: str) -> bytes:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(answered)
        await answered
        return await super().get(path)

    async def during(self, work: Coroutine[Any, Any, Any]) -> None:
        """Answer until the work is done."""
        task = asyncio.get_running_loop().create_task(work)
        while not task.done():
            for _ in range(200):
                await asyncio.sleep(0)
            self.waves += bool(self.waiting)
            waiting, self.waiting = self.waiting, []
            for answered in waiting:
                answered.set_result(None)
        await task


async def test_a_record_with_an_older_head_is_two_ways_to_the_database(tmp_path: Path, once: Once) -> None:
    """Databases keep answers as they were made: the record and the history of its head are proved beside each other."""
    remote = InWaves(Ledger(tmp_path, "sum.example"))
    grow(remote.ledger, 60_123)
    before = remote.ledger.head
    grow(remote.ledger, 66_000)
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)
    await remote.during(database.lines("example.com/m", "v1.65999.0"))
    old = b"4711\n" + record(4711) + b"\n" + before
    remote.changed["lookup/example.com/m@v1.4711.0"], remote.waves = old, 0
    await remote.during(database.lines("example.com/m", "v1.4711.0"))
    assert remote.waves == 2


async def test_records_that_come_together_wait_for_one_head(tmp_path: Path, once: Once) -> None:
    """Of many heads that nobody has seen the newest is taken, and the others are proved beside each other."""
    remote = InWaves(Ledger(tmp_path, "sum.example"))
    for size in range(60_000, 66_001, 1000):
        grow(remote.ledger, size)
        answer = f"{size - 1}\n".encode() + record(size - 1) + b"\n" + remote.ledger.head
        remote.changed[f"lookup/example.com/m@v1.{size - 1}.0"] = answer
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for size in reversed(range(60_000, 66_001, 1000)):
                group.create_task(database.lines("example.com/m", f"v1.{size - 1}.0"))

    await remote.during(all_of_them())
    assert remote.waves <= 4


class Forgetting(FromLedger):
    """While one of its lowest tiles is on its way the client's memory is filled with other ones."""

    fill: Callable[[], None] | None = None

    async def get(self, path: str) -> bytes:
        if self.fill and path.startswith("tile/8/0/"):
            self.fill()
        return await super().get(path)


async def test_a_tile_that_made_room_for_others_meanwhile(tmp_path: Path, once: Once) -> None:
    """What proves a record may be forgotten while the record's own tile is on its way: it was there when it began."""
    remote = Forgetting(Ledger(tmp_path, "sum.example"))
    grow(remote.ledger, 66_000)
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)
    await database.lines("example.com/m", "v1.100.0")
    remote.fill = database._proved.clear
    assert await database.hashes("example.com/m", "v1.1000.0") == ("h1:zip1000", "h1:mod1000")


async def test_what_is_kept_needs_no_database(tmp_path: Path, once: Once) -> None:
    """A client that is started again on the same store proves from there, and serves partial tiles of what it has."""
    remote = FromLedger(Ledger(tmp_path, "sum.example"))
    store = MemoryStore()
    grow(remote.ledger, 66_000)
    await SumDB(remote.ledger.signer.verifier, remote, store, once).hashes("example.com/m", "v1.4711.0")
    remote.asked.clear()
    again = SumDB(remote.ledger.signer.verifier, remote, store, once)
    assert await again.hashes("example.com/m", "v1.4711.0") == ("h1:zip4711", "h1:mod4711")
    for tile in (Tile(8, 0, 18, 256), Tile(8, 0, 18, 100), Tile(8, 1, 0, 200), Tile(8, 1, 1, 1), Tile(8, 2, 0, 1)):
        assert await again.answer(tile.path) == remote.ledger.tile(tile)
    assert remote.asked == []


class Copied:
    """A `Remote` of what a client kept."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def get(self, path: str) -> bytes:
        if (kept := await read(self._store, f"sumdb/sum.example/{path}")) is None:
            raise NotFound(f"{path} was not copied")
        return kept


async def test_a_copy_proves_every_record(tmp_path: Path, once: Once) -> None:
    """Two processes with one store saw different heads: whoever has the copy alone may begin with any record.

    A database that is away while the copy is made leaves records without their proofs, and these are counted, as is a
    damaged one.
    """
    ledger, store = Ledger(tmp_path, "sum.example"), MemoryStore()
    verifier, remote = ledger.signer.verifier, FromLedger(ledger)
    processes = [SumDB(verifier, remote, store, once) for _ in range(2)]
    numbers, heads = [], []
    for process, size in ((0, 3), (1, 300), (1, 66_000), (None, 68_000), (0, 70_000), (0, 70_001)):
        grow(ledger, size)
        numbers.append(size - 2)
        heads.append(ledger.head)
        if process is not None:
            await processes[process].hashes("example.com/m", f"v1.{size - 2}.0")
    # What comes from a cache on the way comes with a head that was never anybody's newest.
    remote.changed["lookup/example.com/m@v1.67998.0"] = b"67998\n" + ledger.record(67_998) + b"\n" + heads[3]
    await processes[0].hashes("example.com/m", "v1.67998.0")
    away = SumDB(verifier, Copied(MemoryStore()), store, once)
    assert await away.complete(store) > 0
    assert await SumDB(verifier, remote, store, once).complete(store) == 0
    assert await away.complete(store) == 0
    await keep(store, "sumdb/sum.example/lookup/example.com/m@v1.7.0", b"4711000\n" + record(7) + b"\n" + heads[-1])
    assert await SumDB(verifier, remote, store, once).complete(store) == 1
    await store.remove("sumdb/sum.example/lookup/example.com/m@v1.7.0")

    for first, head in zip(numbers, heads, strict=True):
        copy = SumDB(verifier, Copied(store), MemoryStore(), once)
        for number in (first, *numbers):
            assert await copy.hashes("example.com/m", f"v1.{number}.0") == (f"h1:zip{number}", f"h1:mod{number}")
        # The go command asks for the tiles of the head that came with its record.
        tree = tlog.parse_tree(check(head, verifier))
        for node in [(0, first), *tlog.roots(tree.size)]:
            tile = tlog.tile_of(node, tree.size)
            assert await copy.answer(tile.path) == ledger.tile(tile)


async def test_partial_tiles_may_be_cut_from_full_ones(tmp_path: Path, once: Once) -> None:
    """A database that dropped its partial tiles once they were full is read all the same."""
    ledger = Ledger(tmp_path, "sum.example")
    grow(ledger, 600)
    old = ledger.head
    grow(ledger, 1024)
    remote = FromLedger(ledger)
    remote.changed["latest"] = old
    remote.without_partial = True
    database = SumDB(ledger.signer.verifier, remote, MemoryStore(), once)
    with pytest.raises(BadUpstream):
        # Its level above is not full yet, so nobody can have dropped that one.
        await database.latest()
    remote.without_partial = False
    assert await database.latest() == old


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """66,000 records, whose tree has three levels of tiles; nobody appends to it."""
    ledger = Ledger(tmp_path_factory.mktemp("log"), "sum.example")
    grow(ledger, 66_000)
    return ledger


@pytest.mark.parametrize(
    "path", ["tile/8/0/018", "tile/8/1/000", "tile/8/1/001.p/1", "tile/8/0/257.p/208", "tile/8/2/000.p/1"]
)
async def test_a_changed_tile_is_found_at_every_level(long_log: Ledger, once: Once, path: str) -> None:
    """Whichever tile of the way is changed, nothing is believed and nothing of it is kept."""
    remote = FromLedger(long_log)
    right = remote.ledger.tile(tlog.parse_tile(path))
    assert right is not None
    remote.changed[path] = bytes([right[0] ^ 1]) + right[1:]
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)
    with pytest.raises(BadTree):
        await database.hashes("example.com/m", "v1.4711.0")
    remote.changed.clear()
    assert await database.hashes("example.com/m", "v1.4711.0") == ("h1:zip4711", "h1:mod4711")


DAMAGED = ["latest", "tile/8/0/018", "tile/8/1/000", "tile/8/1/001.p/1", "tile/8/0/257.p/208", "tile/8/2/000.p/1"]


@pytest.mark.parametrize("path", DAMAGED)
@pytest.mark.parametrize("half", [False, True])
async def test_a_damaged_store_repairs_itself(long_log: Ledger, once: Once, path: str, half: bool) -> None:  # noqa: FBT001
    """A kept file that lost some of its bits, or its end, is fetched once more instead of refusing what it proves."""
    remote, store = FromLedger(long_log), MemoryStore()
    await SumDB(remote.ledger.signer.verifier, remote, store, once).hashes("example.com/m", "v1.4711.0")
    name = f"sumdb/sum.example/{path}"
    right = await read(store, name)
    assert right is not None
    await store.put(name, right[: len(right) // 2] if half else bytes([right[0] ^ 1]) + right[1:])
    again = SumDB(remote.ledger.signer.verifier, remote, store, once)
    assert await again.hashes("example.com/m", "v1.4712.0") == ("h1:zip4712", "h1:mod4712")
    assert await read(store, name) == right


@pytest.mark.parametrize("sizes", [(5, 6), (6, 5), (300, 700), (700, 300), (300, 300)])
async def test_a_fork_is_found_out(tmp_path: Path, once: Once, sizes: tuple[int, int]) -> None:
    """Two histories under one key are told apart, whichever is longer, and also at the same size."""
    one = Ledger(tmp_path / "one", "sum.example")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/key").write_bytes((tmp_path / "one/key").read_bytes())
    other = Ledger(tmp_path / "other", "sum.example")
    grow(one, sizes[0])
    with other.exclusive():
        other.append([b"evil v1.0.0 h1:x\n"])
    grow(other, sizes[1])
    remote = FromLedger(one)
    database = SumDB(one.signer.verifier, remote, MemoryStore(), once)
    await database.latest()
    remote.ledger = other
    with pytest.raises((BadTree, BadUpstream)):
        await database.latest()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x",
        b"0\n",
        b"0\ntext\n\n",
        b"-1\nexample.com/m v1.0.0 h1:x\n\n",
        b"99999999999999999999999\nx\n\nnote",
        b"0\nexample.com/other v1.0.0 h1:x\n\nnote",
    ],
)
async def test_a_malformed_lookup_is_refused(tmp_path: Path, once: Once, answer: bytes) -> None:
    """Whatever is no answer, or the answer to another question, is an error of the database."""
    remote = FromLedger(Ledger(tmp_path, "sum.example"))
    grow(remote.ledger, 3)
    remote.changed["lookup/example.com/m@v1.0.0"] = answer
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)
    with pytest.raises((BadTree, BadNote)):
        await database.hashes("example.com/m", "v1.0.0")


async def test_a_record_with_another_number_is_not_believed(tmp_path: Path, once: Once) -> None:
    """The number of a record is part of what is proved."""
    remote = FromLedger(Ledger(tmp_path, "sum.example"))
    grow(remote.ledger, 300)
    right = await remote.get("lookup/example.com/m@v1.7.0")
    database = SumDB(remote.ledger.signer.verifier, remote, MemoryStore(), once)
    for number in (b"8", b"299", b"300", b"4000000000000000000"):
        remote.changed["lookup/example.com/m@v1.7.0"] = number + right[right.index(b"\n") :]
        with pytest.raises(MooringError):
            await database.hashes("example.com/m", "v1.7.0")


class Switched:
    """A `Remote` that has what it is told to have; what it has not is absent, or an error while it is down."""

    def __init__(self, *paths: str) -> None:
        self.paths = set(paths)
        self.down = False

    async def get(self, path: str) -> bytes:
        if self.down:
            raise Unavailable("down")
        if path not in self.paths:
            raise NotFound("not here")
        return path.encode()


async def test_where_the_database_is_reached_is_found_again() -> None:
    """The first upstream that offers it, else its own address; a choice that fails is made anew."""
    without, offering, own = Switched(), Switched("sumdb/s.x/supported", "sumdb/s.x/latest"), Switched("latest")
    address = DatabaseAddress("s.x", [(without, False), (offering, False)], own, only_own=False)
    assert await address.get("latest") == b"sumdb/s.x/latest"
    offering.down = True
    with pytest.raises(Unavailable):
        await address.get("latest")
    with pytest.raises(Unavailable):
        # Neither offered nor denied: the database's own address may be one that must not be asked from here.
        await address.get("latest")
    offering.down, offering.paths = False, set()
    assert await address.get("latest") == b"latest"
    own.down, offering.paths = True, {"sumdb/s.x/supported", "sumdb/s.x/latest"}
    with pytest.raises(Unavailable):
        await address.get("latest")
    assert await address.get("latest") == b"sumdb/s.x/latest"
    assert (
        await DatabaseAddress("s.x", [(offering, False)], Switched("latest"), only_own=True).get("latest") == b"latest"
    )
