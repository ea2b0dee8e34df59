"""A client of a checksum database (https://go.dev/ref/mod#checksum-database) that believes nothing it cannot prove.

Every record is proved to be in a tree whose head the database signed, and every head to continue the one that was
seen last: a database that shows us something else than the rest of the world cannot do so unnoticed. Only what is
proved is kept, at the place where the go command keeps it: `sumdb/NAME/…`.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from mooring.errors import MooringError, NotFound
from mooring.goproxy import tlog
from mooring.goproxy.faults import BadNote, BadTree, BadUpstream, Mismatch
from mooring.goproxy.flight import Once
from mooring.goproxy.keeping import keep, read
from mooring.goproxy.names import escape, parse_lookup
from mooring.goproxy.note import Verifier, check
from mooring.goproxy.ports import Inventory, Remote, Store
from mooring.goproxy.tlog import HASH, Tile, Tree

log = structlog.get_logger(__name__)
T = TypeVar("T")

_TILES_IN_MEMORY = 2048
_HEADS_IN_MEMORY = 1024
_AT_ONCE = 16


class SumDB:
    """One database. Errors of `remote` pass through."""

    def __init__(self, verifier: Verifier, remote: Remote, store: Store, once: Once) -> None:
        self.verifier = verifier
        self.name = verifier.name
        self._remote = remote
        self._store = store
        self._once = once
        self._head = Tree(0, tlog.EMPTY)
        self._noticed = 0, b""
        self._restored = False
        self._advancing = asyncio.Lock()
        self._proved: OrderedDict[Tile, bytes] = OrderedDict()
        self._consistent: OrderedDict[Tree, None] = OrderedDict()

    async def lines(self, module: str, version: str) -> list[str]:
        """The go.sum lines of a module version.

        Raises:
            NotFound: the database has no record of it, and the module does not exist for it.
            BadTree, BadNote: what it serves contradicts what it signed.
        """
        answer = await self.lookup(f"{escape(module)}@{escape(version)}")
        return tlog.parse_lookup(answer)[1].decode(errors="replace").splitlines()

    async def lookup(self, name: str) -> bytes:
        """The proved answer of `lookup/NAME`, from what we keep if possible."""
        file = f"sumdb/{self.name}/lookup/{name}"
        if (kept := await read(self._store, file)) is not None:
            self._notice(kept)
            return kept
        return await self._once.do(file, lambda: self._lookup(name, file))

    def _notice(self, kept: bytes) -> None:
        """Remember the newest head among kept look-ups: a module cache that was copied in has no other one."""
        with contextlib.suppress(MooringError):
            signed = tlog.parse_lookup(kept)[2]
            if (size := tlog.stated_size(signed)) > max(self._head.size, self._noticed[0]):
                self._noticed = size, signed

    async def _lookup(self, name: str, file: str) -> bytes:
        answer = await self._remote.get(f"lookup/{name}")
        number, text, signed = tlog.parse_lookup(answer)
        module, _, version = name.partition("@")
        wanted = f"{module} {version} h1:".encode()
        if not any(escape(line.decode(errors="replace")).encode().startswith(wanted) for line in text.splitlines()):
            raise BadTree(f"{self.name} answers {name} with the record of another module")
        await self._convince(name, number, text, signed)
        await keep(self._store, file, answer)
        return answer

    async def _convince(self, name: str, number: int, text: bytes, signed: bytes) -> None:
        """Prove a record, and that the head of its answer is of one history with ours."""
        if number < self._head.size:
            # Answers have the heads of when they were made, dozens of them: to wait for each one's proof first would
            # cost more ways to the database than the records do. What the head of now cannot prove a newer one may.
            with contextlib.suppress(BadUpstream):
                await _together(self._believe(signed), self._contain(name, number, text))
                return
        await self._believe(signed)
        await self._contain(name, number, text)

    async def _contain(self, name: str, number: int, text: bytes) -> None:
        """Prove that the tree of the newest head has this record."""
        tree = self._head
        if number >= tree.size:
            raise BadTree(f"{self.name} names record {number} of a tree of {tree.size}")
        tile = tlog.tile_of((0, number), tree.size)
        if tlog.from_tile((0, number), tile, await self._prove(tile, tree)) != tlog.leaf_hash(text):
            raise BadTree(f"{self.name} sends a record of {name} that is not in its tree")

    async def _believe(self, signed: bytes) -> None:
        try:
            await self._advance(signed)
        except BadUpstream:
            # A copy of the database, as an export is one, has the tiles of its newest head, not those of each before.
            await self.latest()
            await self._advance(signed)

    async def complete(self, kept: Inventory) -> int:
        """Keep what proves every kept record, whichever process looked it up: a copy of this store has nothing else.

        Returns how many records lack something that the database did not send now.
        """
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> bool:
            async with turn:
                try:
                    number, _text, signed = tlog.parse_lookup(await read(self._store, name) or b"")
                    await self._advance(signed)
                    if number >= self._head.size:
                        # One damaged file would end the export of all the others: no tile has such a record.
                        return False
                    await self._prove(tlog.tile_of((0, number), self._head.size), self._head)
                except MooringError:
                    return False
                return True

        names = [entry.name async for entry in kept.entries(f"sumdb/{self.name}/lookup/")]
        async with asyncio.TaskGroup() as group:
            done = [group.create_task(one(name)) for name in names]
        return sum(not task.result() for task in done)

    async def answer(self, rest: str) -> bytes:
        """A file for somebody else: `latest`, `lookup/…` or `tile/…`."""
        if rest == "latest":
            return await self.latest()
        if rest.startswith("lookup/"):
            module, version = parse_lookup(rest)
            return await self.lookup(f"{escape(module)}@{escape(version)}")
        return await self.tile(rest)

    async def hashes(self, module: str, version: str) -> tuple[str, str]:
        """The recorded hashes of a version's zip and of its go.mod.

        Raises:
            Mismatch: the record has not both.
        """
        found = {}
        for line in await self.lines(module, version):
            subject, _, h1 = line.rpartition(" ")
            found[subject] = h1
        try:
            return found[f"{module} {version}"], found[f"{module} {version}/go.mod"]
        except KeyError:
            raise Mismatch(f"{self.name} has no full record of {module}@{version}") from None

    async def latest(self) -> bytes:
        """The database's newest signed head, proved to continue the last one."""
        return await self._once.do(f"latest/{self.name}", self._latest)

    async def _latest(self) -> bytes:
        answer = await self._remote.get("latest")
        await self._advance(answer)
        return answer

    async def tile(self, path: str) -> bytes:
        """A tile for somebody else, proved unless it holds records or has another height than everybody's.

        Raises:
            NotFound: the path is no tile's, or the log is not that long.
        """
        tile = tlog.parse_tile(path)
        if tile.level < 0 or tile.height != tlog.HEIGHT:
            return await self._once.do(f"foreign/{self.name}/{path}", lambda: self._remote.get(path))
        await self._ready()
        if not tile.within(self._head.size) and tile.within(self._noticed[0]):
            with contextlib.suppress(MooringError):
                await self._advance(self._noticed[1])
        if not tile.within(self._head.size):
            await self.latest()
        tree = self._head
        if not tile.within(tree.size):
            raise NotFound(f"the log of {self.name} is not that long")
        widest = tlog.tile_of((tile.level * tile.height, tile.number << tile.height), tree.size)
        return (await self._prove(widest, tree))[: tile.width * HASH]

    def _file(self, tile: Tile) -> str:
        return f"sumdb/{self.name}/{tile.path}"

    async def _advance(self, signed: bytes) -> None:
        """Take over a signed head when it is newer; either way it must be of one history with ours."""
        tree = tlog.parse_tree(check(signed, self.verifier))
        if tree not in self._consistent:
            # Look-ups come together, most of them with the same head.
            _ = await self._once.do(
                f"head/{self.name}/{tree.size}/{tree.root.hex()}", lambda: self._advance_to(tree, signed)
            )

    async def _advance_to(self, tree: Tree, signed: bytes) -> bytes:
        await self._ready()
        if tree.size > self._head.size:
            async with self._advancing:
                # Of heads that came together the newest may have been taken while this one waited.
                if tree.size > self._head.size:
                    await self._same_history(self._head, tree)
                    self._head = tree
                    await keep(self._store, f"sumdb/{self.name}/latest", signed)
        if tree != self._head:
            await self._same_history(tree, self._head)
        self._consistent[tree] = None
        if len(self._consistent) > _HEADS_IN_MEMORY:
            self._consistent.popitem(last=False)
        return signed

    async def _ready(self) -> None:
        """The head that was seen last is known."""
        if not self._restored:
            async with self._advancing:
                await self._restore()

    async def _restore(self) -> None:
        if self._restored:
            return
        kept = await read(self._store, f"sumdb/{self.name}/latest")
        if kept is not None:
            try:
                self._head = tlog.parse_tree(check(kept, self.verifier))
            except (BadNote, BadTree) as error:
                # No record could be proved any more, until somebody finds this file.
                log.warning("the head that was seen last is damaged", database=self.name, error=error.detail)
        self._restored = True

    async def _same_history(self, old: Tree, new: Tree) -> None:
        await self._edges(new)
        if old.size == 0:
            return
        where = {node: tlog.tile_of(node, new.size) for node in tlog.roots(old.size)}
        tiles = list(dict.fromkeys(where.values()))
        data = dict(zip(tiles, await _together(*(self._prove(tile, new) for tile in tiles)), strict=True))
        if tlog.combine([tlog.from_tile(node, tile, data[tile]) for node, tile in where.items()]) != old.root:
            raise BadTree(f"{self.name} signed two histories: sizes {old.size} and {new.size} contradict each other")

    async def _edges(self, tree: Tree) -> dict[Tile, bytes]:
        """The tiles that the tree's root follows from, proved."""
        nodes = tlog.roots(tree.size)
        tiles = list(dict.fromkeys(tlog.tile_of(node, tree.size) for node in nodes))
        if all(tile in self._proved for tile in tiles):
            return {tile: self._proved[tile] for tile in tiles}
        data = dict(zip(tiles, await _together(*map(self._fetch, tiles)), strict=True))
        if _root(tree, data) != tree.root:
            self._doubt("the tiles at its edge")
            data = dict(zip(tiles, await _together(*map(self._sent, tiles)), strict=True))
        if _root(tree, data) != tree.root:
            raise BadTree(f"{self.name} sends tiles that its signed head of size {tree.size} contradicts")
        for tile in tiles:
            await self._keep(tile, data[tile])
        return data

    def _doubt(self, what: str) -> None:
        """What is kept may be damaged: it would refuse every record behind it, until somebody finds the file."""
        log.warning("what is kept of a database is damaged, or it lies", database=self.name, what=what)

    async def _prove(self, tile: Tile, tree: Tree) -> bytes:
        """The content of a tile of a tree, which is a head that was taken over."""
        way = [tile]
        while way[-1] not in self._proved and _inside(way[-1], tree):
            way.append(tlog.tile_of(tlog.parent(way[-1]), tree.size))
        top = way.pop()
        # Taken now: while the others are on their way it may have to make room for tiles of other look-ups.
        data = self._remembered(top)
        # All at once: which tiles they are follows from the tree's size, and each would cost a way there and back.
        fetched = await _together(*map(self._fetch, way))
        if data is None:
            data = (await self._edges(tree))[top]
        for below, content in zip(reversed(way), reversed(fetched), strict=True):
            data = await self._right(below, content, tlog.from_tile(tlog.parent(below), top, data))
            await self._keep(below, data)
            top = below
        return data

    async def _right(self, tile: Tile, content: bytes, root: bytes) -> bytes:
        """The content of a full tile whose hash is `root`."""
        if tlog.tile_root(content) == root:
            return content
        self._doubt(tile.path)
        sent = await self._sent(tile)
        if tlog.tile_root(sent) != root:
            raise BadTree(f"{self.name} sends a {tile.path} that its tree contradicts")
        return sent

    def _remembered(self, tile: Tile) -> bytes | None:
        """The content of a tile that is proved."""
        if tile not in self._proved:
            return None
        self._proved.move_to_end(tile)
        return self._proved[tile]

    async def _keep(self, tile: Tile, data: bytes) -> None:
        # Last: whoever is cut off between the two would leave a tile that nobody keeps any more.
        if await read(self._store, self._file(tile)) != data:
            await keep(self._store, self._file(tile), data)
        self._proved[tile] = data
        if len(self._proved) > _TILES_IN_MEMORY:
            self._proved.popitem(last=False)

    async def _fetch(self, tile: Tile) -> bytes:
        """A tile as kept or as the database sends it, not proved."""
        for candidate in (tile, tile.whole):
            kept = await read(self._store, self._file(candidate))
            if kept is not None and len(kept) >= tile.width * HASH:
                return kept[: tile.width * HASH]
        return await self._sent(tile)

    async def _sent(self, tile: Tile) -> bytes:
        """A tile as the database sends it."""
        return await self._once.do(f"unproved/{self._file(tile)}", lambda: self._download(tile))

    async def _download(self, tile: Tile) -> bytes:
        try:
            data = await self._whole_or_partial(tile)
        except NotFound as error:
            # The head that the database signed says that it has it: this is no absence of a module.
            raise BadUpstream(f"{self.name} has no {tile.path}, which its signed head implies") from error
        if len(data) != tile.width * HASH:
            raise BadUpstream(f"{self.name} sends {len(data)} bytes as {tile.path}")
        return data

    async def _whole_or_partial(self, tile: Tile) -> bytes:
        try:
            return await self._remote.get(tile.path)
        except NotFound:
            if tile.full:
                raise
            # A database may drop partial tiles once the full one is there.
            return (await self._remote.get(tile.whole.path))[: tile.width * HASH]


async def _together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """The results of all; the first error of any, which ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        # Whoever asked knows errors, not groups of them.
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


def _root(tree: Tree, data: Mapping[Tile, bytes]) -> bytes:
    """The root of a tree as it follows from the tiles at its edge."""
    tiles = ((node, tlog.tile_of(node, tree.size)) for node in tlog.roots(tree.size))
    return tlog.combine([tlog.from_tile(node, tile, data[tile]) for node, tile in tiles])


def _inside(tile: Tile, tree: Tree) -> bool:
    """Whether a tile is proved by one above it; those at the edge are what the root follows from."""
    level, number = tlog.parent(tile)
    return tile.full and number < tree.size >> level


class PublicRecord:
    """A `Verification` by a checksum database."""

    records = False

    def __init__(self, database: SumDB) -> None:
        self._database = database

    async def prepare(self, module: str, version: str) -> None:
        with contextlib.suppress(MooringError):
            await self._database.lines(module, version)

    async def check(self, module: str, version: str, h1: str) -> None:
        try:
            lines = await self._database.lines(module, version.removesuffix("/go.mod"))
        except NotFound as error:
            raise Mismatch(f"{module}@{version}: {self._database.name} has no record of it: {error.detail}") from error
        recorded = [line.split(" ")[-1] for line in lines if line.startswith(f"{module} {version} h1:")]
        if h1 not in recorded:
            raise Mismatch(
                f"{module}@{version}: checksum mismatch: downloaded {h1}, "
                f"{self._database.name} recorded {', '.join(recorded) or 'nothing'}"
            )
