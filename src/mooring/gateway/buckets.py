"""Which buckets a change of the table touches, and what they say afterwards. O(1) a change, whatever the table."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mooring.gateway.compile import DEEPEST, Place, compiled, encode, place, precedence, route_id
from mooring.model.routes import Route
from mooring.routes.ports import Delta, RouteKey


@dataclass(slots=True)
class Change:
    """New texts by bucket key, the keys and routes that are gone, and the routes that came."""

    sets: dict[str, str] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    came: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    place: Place
    rank: tuple[Any, ...]
    text: dict[str, Any]


@dataclass(slots=True)
class Buckets:
    """The merged table by bucket.

    `change` says what a delta does to the buckets; it must then be `commit`ted or `rollback`ed, once, so that a delta
    that did not fit leaves no trace here either.
    """

    _entries: dict[RouteKey, _Entry] = field(default_factory=dict)
    _buckets: dict[str, dict[RouteKey, _Entry]] = field(default_factory=dict)
    _depths: dict[str, list[int]] = field(default_factory=dict)
    _undo: list[tuple[RouteKey, _Entry | None]] = field(default_factory=list)

    def change(self, delta: Delta) -> Change:
        """Apply `delta` here and say which buckets changed; for a complete one, all of them."""
        dirty: set[str] = set()
        upserts = dict(delta.upserts)
        removed = set(delta.deletes) - set(upserts)
        if delta.complete:
            removed |= set(self._entries) - set(upserts)
        present = [key for key in removed if key in self._entries]
        came = [route_id(key) for key in upserts if key not in self._entries]
        for key in present:
            self._put(key, None, dirty)
        for key, route in upserts.items():
            self._put(key, _entry(key, route), dirty)
        texts = self._texts(self._every() if delta.complete else dirty)
        return Change(
            sets={key: text for key, text in texts if text is not None},
            deletes=[key for key, text in texts if text is None],
            gone=[route_id(key) for key in present],
            came=came,
        )

    def commit(self) -> None:
        """Keep what the last `change` did."""
        self._undo.clear()

    def rollback(self) -> None:
        """Take back what the last `change` did."""
        undo, self._undo = self._undo, []
        for key, before in reversed(undo):
            self._put(key, before, set())
        self._undo.clear()

    def _every(self) -> set[str]:
        return set(self._buckets) | set(self._depths)

    def _put(self, key: RouteKey, entry: _Entry | None, dirty: set[str]) -> None:
        before = self._entries.get(key)
        self._undo.append((key, before))
        if before is not None and entry is not None and before.place == entry.place:
            self._entries[key] = self._buckets[entry.place.bucket][key] = entry
            dirty.add(entry.place.bucket)
            return
        if before is not None:
            self._remove(key, before.place, dirty)
        if entry is not None:
            self._insert(key, entry, dirty)

    def _insert(self, key: RouteKey, entry: _Entry, dirty: set[str]) -> None:
        self._entries[key] = entry
        self._buckets.setdefault(entry.place.bucket, {})[key] = entry
        self._count(entry.place, 1, dirty)

    def _remove(self, key: RouteKey, left: Place, dirty: set[str]) -> None:
        del self._entries[key]
        bucket = self._buckets[left.bucket]
        del bucket[key]
        if not bucket:
            del self._buckets[left.bucket]
        self._count(left, -1, dirty)

    def _count(self, at: Place, by: int, dirty: set[str]) -> None:
        """Keep how many routes of the host live at each depth; the host's entry changes when the deepest does."""
        counts = self._depths.setdefault(at.host, [0] * (DEEPEST + 1))
        before = _depth(counts)
        counts[at.depth] += by
        dirty.add(at.bucket)
        if _depth(counts) != before:
            dirty.add(at.host)
        if not any(counts):
            del self._depths[at.host]

    def _texts(self, keys: Iterable[str]) -> list[tuple[str, str | None]]:
        return [(key, self._text(key)) for key in sorted(keys)]

    def _text(self, key: str) -> str | None:
        counts = self._depths.get(key)
        entries = sorted(self._buckets.get(key, {}).values(), key=lambda entry: entry.rank)
        if counts is None and not entries:
            return None
        return encode(_depth(counts) if counts else None, [entry.text for entry in entries])


def _entry(key: RouteKey, route: Route) -> _Entry:
    return _Entry(place(route), precedence(key, route), compiled(key, route))


def _depth(counts: list[int]) -> int:
    """The deepest level that holds a route; -1 when none does."""
    return max((level for level, count in enumerate(counts) if count), default=-1)
