"""The arithmetic of a transparency log: an append-only Merkle tree (RFC 6962), read in tiles. Pure.

A node is (level, n): the hash over the leaves n·2^level up to (n+1)·2^level. A tile of height H, level L, number N
holds W nodes of level H·L from N·2^H on; all levels in between follow from those. Its path is `tile/H/L/NNN[.p/W]`.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mooring.errors import NotFound
from mooring.goproxy.faults import BadTree

HEIGHT = 8
HASH = 32
_MAX_HEIGHT = 30
_MAX_LEVEL = 63
_MAX_SIZE = 2**62
_STATED = re.compile(rb"[^\n]*\n(\d{1,18})\n")
# No longer than the largest tile's name: Python refuses to read numbers of thousands of digits.
_TILE = re.compile(r"tile/([0-9]{1,2})/([0-9]{1,2}|data)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,10}))?")
_HEAD = "go.sum database tree\n"

Node = tuple[int, int]


def leaf_hash(record: bytes) -> bytes:
    """The hash of a record (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree head: how many records, and the root hash."""

    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{_HEAD}{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_tree(text: str) -> Tree:
    """The head that a note's text states.

    Raises:
        BadTree: it states none.
    """
    lines = text.split("\n")
    try:
        size, root = int(lines[1]), base64.b64decode(lines[2], validate=True)
    except (IndexError, ValueError, binascii.Error) as error:
        raise BadTree("the tree head is malformed") from error
    if not text.startswith(_HEAD) or not 0 <= size < _MAX_SIZE or len(root) != HASH:
        raise BadTree("the tree head is malformed")
    return Tree(size, root)


def stated_size(signed: bytes) -> int:
    """The size that a signed head states, whoever signed it; 0 where it states none."""
    found = _STATED.match(signed)
    return int(found[1]) if found else 0


def parse_lookup(answer: bytes) -> tuple[int, bytes, bytes]:
    """The record's number, its text and the signed head of a lookup's answer.

    Raises:
        BadTree: it is malformed.
    """
    number, newline, rest = answer.partition(b"\n")
    text, separator, note = rest.partition(b"\n\n")
    if not newline or not separator or not number.isdigit() or len(number) > 19:  # noqa: PLR2004 - digits of 2^63
        raise BadTree("the lookup's answer is malformed")
    return int(number), text + b"\n", note


@dataclass(frozen=True, slots=True)
class Tile:
    """Where some hashes are; level -1 holds the records themselves."""

    height: int
    level: int
    number: int
    width: int

    @property
    def full(self) -> bool:
        return self.width == 1 << self.height

    @property
    def path(self) -> str:
        parts = [f"{self.number % 1000:03d}"]
        rest = self.number // 1000
        while rest:
            parts.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        level = "data" if self.level < 0 else str(self.level)
        partial = "" if self.full else f".p/{self.width}"
        return f"tile/{self.height}/{level}/{'/'.join(parts)}{partial}"

    @property
    def whole(self) -> "Tile":
        """The full tile that this one is the beginning of."""
        return Tile(self.height, self.level, self.number, 1 << self.height)

    def nodes(self) -> Iterator[Node]:
        """The nodes that it lists."""
        first = self.number << self.height
        return ((self.height * self.level, first + i) for i in range(self.width))

    def within(self, size: int) -> bool:
        """Whether a tree of `size` records has all of it."""
        end = (self.number << self.height) + self.width
        return end <= size >> (self.height * max(self.level, 0))


def parse_tile(path: str) -> Tile:
    """The tile of a path.

    Raises:
        NotFound: it is no tile's.
    """
    match = _TILE.fullmatch(path)
    if match is not None:
        height, partial = int(match[1]), match[4]
        level = -1 if match[2] == "data" else int(match[2])
        number = int(match[3].replace("x", "").replace("/", ""))
        if 1 <= height <= _MAX_HEIGHT and level <= _MAX_LEVEL:
            tile = Tile(height, level, number, int(partial) if partial else 1 << height)
            if tile.path == path and 0 < tile.width <= 1 << height and number < _MAX_SIZE:
                return tile
    raise NotFound(f"malformed tile path {path[:80]!r}")


def roots(size: int) -> list[Node]:
    """The complete subtrees that a tree of `size` records is made of, from left to right."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def combine(hashes: list[bytes]) -> bytes:
    """The root over complete subtrees from left to right."""
    if not hashes:
        return EMPTY
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def tile_root(data: bytes) -> bytes:
    """The hash over a full tile, or over any power of two of hashes."""
    level = [data[i : i + HASH] for i in range(0, len(data), HASH)]
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def tile_of(node: Node, size: int, height: int = HEIGHT) -> Tile:
    """The tile, as wide as a tree of `size` has it, from which a node follows."""
    level, number = node
    tile_level, inner = divmod(level, height)
    tile_number = (number << inner) >> height
    have = (size >> (tile_level * height)) - (tile_number << height)
    return Tile(height, tile_level, tile_number, min(have, 1 << height))


def from_tile(node: Node, tile: Tile, data: bytes) -> bytes:
    """The hash of a node that follows from a tile."""
    level, number = node
    inner = level - tile.level * tile.height
    start = (number << inner) - (tile.number << tile.height)
    return tile_root(data[start * HASH : (start + (1 << inner)) * HASH])


def parent(tile: Tile) -> Node:
    """The node whose hash is the root of a full tile."""
    return (tile.level + 1) * tile.height, tile.number
