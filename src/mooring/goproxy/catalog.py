"""What the store holds, for people and for mirrors: the catalog, and the index in the public index's form."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass

from mooring.control.clock import Clock
from mooring.errors import InvalidInput, NotFound
from mooring.goproxy.names import Ask, Kind, parse
from mooring.goproxy.ports import Inventory

_YOUNG_S = 5.0
_MOST = 2000


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that is kept: when it came, the bytes of its files, when one was last read."""

    module: str
    version: str
    since: float
    size: int
    used: float


class Catalog:
    """Reads the store; what was read is believed for five seconds."""

    def __init__(self, store: Inventory, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._read_at = float("-inf")
        self._kept: list[Kept] = []

    async def all(self) -> list[Kept]:
        """Every version, the oldest first."""
        if self._clock.monotonic() - self._read_at > _YOUNG_S:
            self._kept = await self._read()
            self._read_at = self._clock.monotonic()
        return self._kept

    async def _read(self) -> list[Kept]:
        found: dict[tuple[str, str], Kept] = {}
        async for entry in self._store.entries():
            try:
                ask = parse(b"/" + entry.name.encode())
            except NotFound:
                continue
            if not isinstance(ask, Ask) or not ask.immutable:
                continue
            key = (ask.module, ask.version)
            old = found.get(key, Kept(*key, entry.modified, 0, 0.0))
            # The zip may come later or come back: a version is as old as its first file.
            since = min(old.since, entry.modified) if ask.kind is not Kind.zip or not old.size else old.since
            found[key] = Kept(*key, since, old.size + entry.size, max(old.used, entry.used))
        return sorted(found.values(), key=lambda kept: (kept.since, kept.module, kept.version))

    async def index(self, since: str, limit: str, may: Callable[[str], bool]) -> bytes:
        """Versions that came at or after `since` (RFC 3339), one JSON document a line, at most `limit`.

        Raises:
            InvalidInput: a parameter is malformed; says what is allowed.
        """
        start, most = _since(since), _limit(limit)
        chosen = [kept for kept in await self.all() if kept.since >= start and may(kept.module)][:most]
        lines = (
            {
                "Path": kept.module,
                "Version": kept.version,
                "Timestamp": dt.datetime.fromtimestamp(kept.since, dt.UTC).isoformat(timespec="microseconds"),
            }
            for kept in chosen
        )
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()

    async def search(self, text: str, limit: str, may: Callable[[str], bool]) -> bytes:
        """Modules whose path contains `text`, as a JSON document with their versions. Raises as `index`."""
        most = _limit(limit)
        modules: dict[str, list[dict[str, object]]] = {}
        for kept in await self.all():
            if text in kept.module and may(kept.module) and (kept.module in modules or len(modules) < most):
                version = {"version": kept.version, "since": kept.since, "bytes": kept.size, "used": kept.used}
                modules.setdefault(kept.module, []).append(version)
        found = [{"module": module, "versions": versions} for module, versions in sorted(modules.items())]
        return json.dumps({"modules": found}).encode()


def _since(text: str) -> float:
    if not text:
        return 0.0
    try:
        # A plus that was sent raw arrives as a space.
        return dt.datetime.fromisoformat(text.replace(" ", "+")).timestamp()
    except ValueError:
        raise InvalidInput("since must be a time as in RFC 3339: 2026-01-02T03:04:05Z", field="since") from None


def _limit(text: str) -> int:
    if not text:
        return _MOST
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise InvalidInput(f"limit must be a number from 1 to {_MOST}", field="limit")
    return int(text)
