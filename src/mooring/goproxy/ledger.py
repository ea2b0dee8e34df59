"""A transparency log on disk: records in one append-only file, and a signed head that says how many of them count.

A record counts once the head that covers it is on the disk. So a kill at any byte leaves whole records that the head
covers, and behind them at most something torn that nobody was ever told of: the next append cuts it off. Several
processes may append to one folder, one after the other. The tree's hashes follow from the records and are kept in
memory: 64 bytes a record. Blocking.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mooring.errors import InvalidInput, Misconfigured
from mooring.goproxy import tlog
from mooring.goproxy.faults import BadNote, BadTree
from mooring.goproxy.note import Signer, check, parse_signer
from mooring.goproxy.tlog import HASH, Node, Tile, Tree

_END = b"\n\n"


class Ledger:
    """The log below `folder`, made at the first start with a key of the name `name`.

    Raises:
        Misconfigured: the key is gone, or the files contradict what was signed; says what to restore.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._levels: list[bytearray] = []
        self._records: list[bytes] = []
        self._size = 0
        self._end = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder):
            self._signer = _key(folder, name)
            self.head = self._signer.sign(Tree(0, tlog.EMPTY).text)
            self._begin()
            self.catch_up()

    @property
    def signer(self) -> Signer:
        """Who signs; its `verifier.text` is what belongs into GOSUMDB."""
        return self._signer

    @property
    def size(self) -> int:
        """How many records count; behind them there may be some that another thread is just appending."""
        return self._size

    def record(self, number: int) -> bytes:
        """The text of a record."""
        return self._records[number]

    def records(self, start: int = 0) -> list[bytes]:
        """All records from `start` on."""
        return self._records[start : self._size]

    def node(self, node: Node) -> bytes:
        """The hash of a complete subtree."""
        level, number = node
        return bytes(self._levels[level][number * HASH : (number + 1) * HASH])

    def tile(self, tile: Tile) -> bytes | None:
        """The content of a tile, None when the log is too short for it."""
        if not tile.within(self.size):
            return None
        if tile.level < 0:
            start = tile.number << tile.height
            return b"".join(text + b"\n" for text in self._records[start : start + tile.width])
        return b"".join(self.node(node) for node in tile.nodes())

    def append(self, texts: list[bytes]) -> int:
        """Append records, each of lines that end in a newline, none empty; the number of the first.

        Call it within `exclusive()`, after which `size` and `records` are up to date with other processes.

        Raises:
            OSError: the disk takes no more; nothing was appended.
        """
        first = self.size
        data = b"".join(text + b"\n" for text in texts)
        if not (self._folder / "head").exists():
            # Records without one are those of a log that lost its head.
            _replace(self._folder / "head", self.head)
        fd = os.open(self._folder / "records", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # What a killed process left behind the last record that counts must not become part of this one.
            os.ftruncate(fd, self._end)
            _write(fd, data, self._end)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._sign(texts)
        self._end += len(data)
        return first

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the log against other processes, with all that they appended read in."""
        with _locked(self._folder):
            self.catch_up()
            yield

    def catch_up(self) -> None:
        """Read what other processes appended.

        Raises:
            Misconfigured: the files contradict what was signed.
        """
        try:
            signed = (self._folder / "head").read_bytes()
        except FileNotFoundError:
            return
        # Times and inodes repeat: only the content says whether another process appended, and one that is overlooked
        # would be cut off by our next append.
        if signed == self.head:
            return
        try:
            tree = tlog.parse_tree(check(signed, self._signer.verifier))
        except (BadNote, BadTree) as error:
            raise Misconfigured(f"{self._folder}/head: {error.detail}", field="notary") from error
        self._read(tree)
        self.head = signed

    def _begin(self) -> None:
        """Sign that there is nothing yet. From then on a log without a head is one that lost it."""
        head, records = self._folder / "head", self._folder / "records"
        if head.exists():
            return
        if records.exists() and records.stat().st_size:
            # The next append would cut all of them off.
            raise Misconfigured(f"{head} is gone: restore it together with {records}", field="notary")
        # A full disk is no reason not to serve: the first append signs it.
        with suppress(OSError):
            _replace(head, self.head)

    def _read(self, tree: Tree) -> None:
        try:
            with (self._folder / "records").open("rb") as file:
                file.seek(self._end)
                rest = file.read()
        except FileNotFoundError:
            rest = b""
        wanted = tree.size - len(self._records)
        texts = rest.split(_END)[: max(0, wanted)]
        # Without the blank line after it the last piece is torn.
        whole = sum(len(text) + len(_END) for text in texts) <= len(rest)
        if wanted < 0 or len(texts) < wanted or not whole:
            raise Misconfigured(f"{self._folder}/records holds less than was signed: restore both", field="notary")
        for text in texts:
            self._grow(text + b"\n")
        self._end += sum(len(text) + len(_END) for text in texts)
        self._size = tree.size
        if self._root() != tree.root:
            raise Misconfigured(f"{self._folder}/records is not what was signed: restore it", field="notary")

    def _root(self) -> bytes:
        return tlog.combine([self.node(node) for node in tlog.roots(len(self._records))])

    def _grow(self, text: bytes) -> None:
        self._records.append(text)
        digest, level, number = tlog.leaf_hash(text), 0, len(self._records) - 1
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += digest
            if number % 2 == 0:
                return
            digest = tlog.node_hash(self.node((level, number - 1)), digest)
            level, number = level + 1, number // 2

    def _sign(self, texts: list[bytes]) -> None:
        before = self.size
        for text in texts:
            self._grow(text)
        try:
            signed = self._signer.sign(Tree(len(self._records), self._root()).text)
            _replace(self._folder / "head", signed)
        except OSError:
            self._shrink(before)
            raise
        self.head = signed
        self._size = len(self._records)

    def _shrink(self, size: int) -> None:
        del self._records[size:]
        for level, hashes in enumerate(self._levels):
            del hashes[(size >> level) * HASH :]


def public_key(folder: Path, name: str) -> str:
    """What belongs into GOSUMDB for the log below `folder`; its key is made at the first call. Reads no record.

    Raises:
        Misconfigured: as `Ledger`.
        OSError: the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder):
        return _key(folder, name).verifier.text


def _key(folder: Path, name: str) -> Signer:
    file = folder / "key"
    try:
        return parse_signer(file.read_text().strip())
    except FileNotFoundError:
        if (folder / "head").exists() or (folder / "records").exists():
            raise Misconfigured(f"{file} is gone: restore it, everybody's GOSUMDB names it", field="notary") from None
    except (InvalidInput, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} is damaged: restore it, everybody's GOSUMDB names it", field="notary") from error
    signer = Signer.make(name)
    _replace(file, f"{signer.text}\n".encode())
    return signer


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        at += written
        view = view[written:]


def _replace(path: Path, data: bytes) -> None:
    """All of the new content or all of the old, also after a power cut."""
    # Under the lock one name will do. What a killed process left may be another user's, whom nobody could write over.
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, data, 0)
        os.fsync(fd)
    except OSError:
        temporary.unlink()
        raise
    finally:
        os.close(fd)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
