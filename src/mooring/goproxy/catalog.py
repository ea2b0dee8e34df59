"""What the store holds, for people and for mirrors: the catalog, and the index in the public index's form."""

import asyncio
import datetime as dt
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from mooring.control.clock import Clock
from mooring.errors import InvalidInput, NotFound
from mooring.goproxy.names import Ask, Kind, ask, parse
from mooring.goproxy.ports import Entry, Inventory

_SETTLED_S = 90.0
"""What came in the last seconds before a walk may not be all of what did: a bucket counts a file from the beginning of
its upload, a network file system shows a folder as it was up to a minute ago, and clocks of machines differ."""
_ROUNDED_S = 1e-6
_YOUNG_S = 5.0
_REST = 10
_MOST = 2000


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that is kept: when it came, the bytes of its files, when one was last read, whether its zip is here."""

    module: str
    version: str
    since: float
    size: int
    used: float
    zip: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the store held when it was read: versions, the oldest first; the same by module; all files and bytes."""

    kept: list[Kept]
    modules: dict[str, list[Kept]]
    files: int
    size: int
    settled: float
    """Every version that came before this moment is there, in seconds since the epoch."""


class Catalog:
    """Reads the store; what was read is believed for five seconds, and for ten times as long as the reading took."""

    def __init__(self, store: Inventory, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._read_at = float("-inf")
        self._holdings = Holdings([], {}, 0, 0, 0.0)
        self._believed_s = _YOUNG_S
        self._reading = asyncio.Lock()

    async def all(self) -> list[Kept]:
        """Every version, the oldest first."""
        return (await self.holdings()).kept

    async def holdings(self) -> Holdings:
        """What the store holds."""
        # A walk through a large store takes seconds: those who ask meanwhile wait for the same one.
        async with self._reading:
            began = self._clock.monotonic()
            if began - self._read_at > self._believed_s:
                self._holdings = await self._read()
                self._read_at = self._clock.monotonic()
                self._believed_s = max(_YOUNG_S, _REST * (self._read_at - began))
            return self._holdings

    async def versions(self, module: str) -> list[Kept]:
        """The versions of one module as they are now; empty for a path that is none."""
        try:
            prefix = ask(module, "", Kind.list).name.removesuffix("list")
        except NotFound:
            return []
        found: dict[tuple[str, str], Kept] = {}
        async for entry in self._store.entries(prefix):
            _add(found, entry)
        return [kept for kept in found.values() if kept.module == module]

    def forget(self) -> None:
        """Something was removed: look again."""
        self._read_at = float("-inf")

    async def _read(self) -> Holdings:
        settled = self._clock.now() - _SETTLED_S
        found: dict[tuple[str, str], Kept] = {}
        files = size = 0
        async for entry in self._store.entries():
            files += 1
            size += entry.size
            _add(found, entry)
        kept = sorted(found.values(), key=lambda kept: (kept.since, kept.module, kept.version))
        modules: dict[str, list[Kept]] = {}
        for version in kept:
            modules.setdefault(version.module, []).append(version)
        return Holdings(kept, modules, files, size, settled)

    async def index(self, since: str, limit: str, may: Callable[[str], bool]) -> bytes:
        """Versions that came at or after `since` (RFC 3339), one JSON document a line, at most `limit`.

        None that came just now: a mirror asks next for what came since the last one, and would miss an earlier one
        that was still on its way.

        Raises:
            InvalidInput: a parameter is malformed; says what is allowed.
        """
        start, most = _since(since), _limit(limit)
        holdings = await self.holdings()
        found = (kept for kept in holdings.kept if start <= kept.since < holdings.settled and may(kept.module))
        lines = (
            {
                "Path": kept.module,
                "Version": kept.version,
                "Timestamp": dt.datetime.fromtimestamp(kept.since, dt.UTC).isoformat(timespec="microseconds"),
            }
            for kept in islice(found, most)
        )
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()

    async def search(self, text: str, limit: str, may: Callable[[str], bool]) -> bytes:
        """Modules whose path contains `text`, as a JSON document with their versions. Raises as `index`."""
        most = _limit(limit)
        modules = (await self.holdings()).modules
        chosen = islice((module for module in modules if text in module and may(module)), most)
        found = [
            {"module": module, "versions": [_document(kept) for kept in modules[module]]} for module in sorted(chosen)
        ]
        return json.dumps({"modules": found}).encode()


def _add(found: dict[tuple[str, str], Kept], entry: Entry) -> None:
    try:
        wanted = parse(b"/" + os.fsencode(entry.name))
    except NotFound:
        return
    if isinstance(wanted, Ask) and wanted.immutable:
        key = (wanted.module, wanted.version)
        found[key] = _with(found.get(key), wanted, entry)


def _with(old: Kept | None, wanted: Ask, entry: Entry) -> Kept:
    """The version of `ask`, of which this file is kept too."""
    is_zip = wanted.kind is Kind.zip
    # Whoever looks at a version reads its info: that is no use of it.
    used = entry.modified if wanted.kind is Kind.info else entry.used
    if old is None:
        return Kept(wanted.module, wanted.version, entry.modified, entry.size, used, is_zip)
    # A zip may come back: a version is as old as its first file.
    since = min(old.since, entry.modified)
    return Kept(wanted.module, wanted.version, since, old.size + entry.size, max(old.used, used), old.zip or is_zip)


def _document(kept: Kept) -> dict[str, object]:
    return {"version": kept.version, "since": kept.since, "bytes": kept.size, "used": kept.used}


def _since(text: str) -> float:
    if not text:
        return 0.0
    try:
        # A plus that was sent raw arrives as a space.
        moment = dt.datetime.fromisoformat(text.replace(" ", "+"))
        if moment.tzinfo is not None:
            # The last digit of a moment that we showed may have been rounded up.
            return moment.timestamp() - _ROUNDED_S
    except ValueError:
        pass
    # Without its zone it would be one of this machine's, and a mirror elsewhere would miss hours.
    raise InvalidInput("since must be a time with its zone as in RFC 3339: 2026-01-02T03:04:05Z", field="since")


def _limit(text: str) -> int:
    if not text:
        return _MOST
    # Python refuses to read numbers of thousands of digits.
    if not text.isdecimal() or len(text) > len(str(_MOST)) or not 1 <= int(text) <= _MOST:
        raise InvalidInput(f"limit must be a number from 1 to {_MOST}", field="limit")
    return int(text)
