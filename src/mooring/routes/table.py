"""The route table: sections in, the merged table and its changes out. Every change costs O(changed), not O(table).

Belongs to one event loop; nothing here waits but a subscriber for the next change.
"""

import asyncio
import secrets
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Self

from mooring.errors import InvalidInput
from mooring.model.grants import Grants
from mooring.model.routes import Route
from mooring.routes.merge import Claim, MatchKey, Section, claim, losers, match_key
from mooring.routes.ports import Conflict, Delta, Revision, RouteKey, SectionChange

_MOST_PENDING = 4096
"""Changed keys that a slow subscriber may owe beyond the table's own size before it gets a snapshot instead."""


class RouteTable:
    """Sections by source, the merged table, its revision and its subscribers."""

    def __init__(self) -> None:
        self._revision = Revision(secrets.token_hex(8), 0)
        self._ranks: dict[str, int] = {}
        self._sections: dict[str, dict[str, Route]] = {}
        self._claims: dict[MatchKey, list[Claim]] = {}
        self._contested: dict[MatchKey, None] = {}
        self._served: dict[RouteKey, Route] = {}
        self._grants: Grants | None = None
        self._subscriptions: set[Subscription] = set()

    @property
    def revision(self) -> Revision:
        """The revision of what `routes` and `grants` are now."""
        return self._revision

    @property
    def grants(self) -> Grants | None:
        """The newest grants; None before any came."""
        return self._grants

    def routes(self) -> Mapping[RouteKey, Route]:
        """The merged table, a live view."""
        return MappingProxyType(self._served)

    def sections(self) -> dict[str, Section]:
        """Every section, the losers of conflicts included, as live views."""
        return {name: Section(self._ranks[name], MappingProxyType(s)) for name, s in self._sections.items()}

    def conflicts(self) -> tuple[Conflict, ...]:
        """Who is not served, and because of whom; by loser."""
        found = (conflict for key in self._contested for conflict in losers(self._claims[key]))
        return tuple(sorted(found, key=lambda conflict: conflict.loser))

    def snapshot(self) -> Delta:
        """The whole table as a complete delta."""
        return Delta(upserts=tuple(self._served.items()), complete=True, grants=self._grants)

    def apply(self, change: SectionChange, rank: int) -> Delta:
        """Apply `change` as a whole, with the rank of its source. An empty delta: nothing that is served changed.

        Raises:
            InvalidInput: two upserts have the same name; then nothing is applied.
        """
        upserts = {route.name: route for route in change.upserts}
        if len(upserts) < len(change.upserts):
            raise InvalidInput(f"{change.source}: two routes have the same name", field="upserts")
        section = self._sections.setdefault(change.source, {})
        new: dict[str, Route | None] = dict.fromkeys(section if change.complete else change.deletes)
        new.update(upserts)
        if self._ranks.setdefault(change.source, rank) != rank:
            # Its claims are sorted in by the old rank: all of them must be taken out and put in again.
            new = {**section, **new}
            changed = list(new)
        else:
            changed = [name for name, route in new.items() if section.get(name) != route]
        delta = self._replace(change.source, rank, {name: new[name] for name in changed})
        return self._publish(delta, change.grants)

    def subscribe(self) -> "Subscription":
        """Revisions and deltas: first a snapshot, then every change, several as one for a slow subscriber."""
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: "Subscription") -> None:
        """Forget it. Absence is no error."""
        self._subscriptions.discard(subscription)

    def _replace(self, source: str, rank: int, new: Mapping[str, Route | None]) -> Delta:
        section = self._sections[source]
        touched = {match_key(r) for name, now in new.items() for r in (section.get(name), now) if r is not None}
        before = {key: self._served[key] for key in self._winners(touched)}
        for name in new:
            if (old := section.pop(name, None)) is not None:
                self._withdraw(match_key(old), claim(source, self._ranks[source], old))
        self._ranks[source] = rank
        for name, route in new.items():
            if route is not None:
                section[name] = route
                insort(self._claims.setdefault(match_key(route), []), claim(source, rank, route))
        after = {key: self._sections[key.source][key.name] for key in self._winners(touched)}
        for key in before.keys() - after.keys():
            del self._served[key]
        self._served.update(after)
        self._note_contests(touched)
        return Delta(
            upserts=tuple((key, route) for key, route in after.items() if before.get(key) != route),
            deletes=tuple(sorted(before.keys() - after.keys())),
        )

    def _winners(self, touched: Iterable[MatchKey]) -> list[RouteKey]:
        return [claims[0].key for key in touched if (claims := self._claims.get(key))]

    def _withdraw(self, key: MatchKey, old: Claim) -> None:
        claims = self._claims[key]
        del claims[bisect_left(claims, old)]
        if not claims:
            del self._claims[key]

    def _note_contests(self, touched: Iterable[MatchKey]) -> None:
        for key in touched:
            if len(self._claims.get(key, ())) > 1:
                self._contested[key] = None
            else:
                self._contested.pop(key, None)

    def _publish(self, delta: Delta, grants: Grants | None) -> Delta:
        if grants == self._grants:
            grants = None
        if grants is not None:
            self._grants = grants
            delta = Delta(delta.upserts, delta.deletes, grants=grants)
        if delta.upserts or delta.deletes or grants is not None:
            self._revision = Revision(self._revision.epoch, self._revision.number + 1)
            for subscription in self._subscriptions:
                subscription.note(delta)
        return delta


class Subscription:
    """An asynchronous iterator of `(Revision, Delta)`; cancelling a wait for the next one loses nothing.

    What a slow subscriber owes is kept as the changed keys only, and is read from the table when it comes back, so
    memory stays bounded by the table. Use it as a context, or call `close`.
    """

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._pending: dict[RouteKey, None] = {}
        self._grants = False
        self._complete = True
        self._wake = asyncio.Event()
        self._wake.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Revision, Delta]:
        await self._wake.wait()
        self._wake.clear()
        complete, keys, grants = self._complete, self._pending, self._grants
        self._complete, self._pending, self._grants = False, {}, False
        if complete:
            return self._table.revision, self._table.snapshot()
        served = self._table.routes()
        return self._table.revision, Delta(
            upserts=tuple((key, served[key]) for key in keys if key in served),
            deletes=tuple(key for key in keys if key not in served),
            grants=self._table.grants if grants else None,
        )

    def note(self, delta: Delta) -> None:
        """Owe `delta`: for the table, and for a subscriber that could not use what it was given."""
        self._complete = self._complete or delta.complete
        self._grants = self._grants or delta.grants is not None
        self._pending.update((key, None) for key, _ in delta.upserts)
        self._pending.update(dict.fromkeys(delta.deletes))
        if self._complete or len(self._pending) > len(self._table.routes()) + _MOST_PENDING:
            # Keys that came and went would pile up for ever while the subscriber sleeps.
            self._complete, self._pending = True, {}
        self._wake.set()

    def restart(self) -> None:
        """Have the next delta be a snapshot."""
        self.note(Delta(complete=True))

    def close(self) -> None:
        """Get nothing more."""
        self._table.unsubscribe(self)
