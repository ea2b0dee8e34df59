"""The gateway's agent: composes its sources into one table, and keeps the data plane equal to it."""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple, TypeVar

import structlog

from mooring.control.backoff import Backoff
from mooring.control.tasks import Tasks
from mooring.errors import MooringError
from mooring.gateway.feed import Feed
from mooring.gateway.names import Names
from mooring.gateway.snapshot import Snapshot
from mooring.routes.merge import Section
from mooring.routes.ports import Conflict, Revision, RouteSink, RouteSource, SectionChange
from mooring.routes.rules import Rules
from mooring.routes.table import RouteTable

log = structlog.get_logger(__name__)
Problem = TypeVar("Problem")

MOST_NAMED = 20
"""Of a kind in a report: a Redis of ten thousand bad addresses would be megabytes of it every two seconds."""
RESTORED_RANK = 1000
"""For a kept section without a rank: behind everything that says who it is."""


class OwnTable(NamedTuple):
    """What only this gateway knows of its table. `changes` counts those of its own sections."""

    changes: int
    sections: dict[str, Section]
    conflicts: tuple[Conflict, ...]


class Agent:
    """Follows `sources` and feeds `sink`. `restored`: what `Snapshot.load` found; `snapshot` keeps the table.

    Routes that `rules` refuse are left out and reported.

    A sink that already has a table (an nginx that outlived the agent before) keeps it until every source is current,
    for `adopt_s` seconds at most.
    """

    def __init__(
        self,
        sources: Sequence[RouteSource],
        sink: RouteSink,
        *,
        snapshot: Snapshot | None = None,
        restored: Sequence[SectionChange] = (),
        rules: Rules | None = None,
        adopt_s: float = 10.0,
    ) -> None:
        self.table = RouteTable()
        self._sources = tuple(sources)
        self._names = Names(sink)
        self._feed = Feed(self.table, self._names)
        self._rules = rules
        self._refused: dict[str, dict[str, str]] = {}
        self._adopt_s = adopt_s
        self._snapshot = snapshot
        self._backoff = Backoff(first=0.1, most=5.0)
        self._failures: dict[str, str] = {}
        self._own_changes = 0
        self._marks: deque[tuple[int, Revision]] = deque(maxlen=4096)
        self._reached: tuple[int, Revision] | None = None
        for change in restored:
            self.table.apply(self._allowed(change), RESTORED_RANK if change.rank is None else change.rank)

    def start(self, tasks: Tasks) -> None:
        """Start following and feeding; `tasks` owns the work."""
        tasks.forever("feed", self._feed_for_ever())
        tasks.forever("grants", self._feed.run_grants())
        tasks.forever("names", self._names.run())
        if self._snapshot is not None:
            tasks.forever("snapshot", self._snapshot.keep(self.table))
        for source in self._sources:
            tasks.forever(f"source-{source.name}", self._follow(source))

    def stale(self) -> dict[str, float]:
        """For each source the seconds since it was current; `inf` when it never was."""
        return {source.name: source.stale_s() for source in self._sources}

    def own(self) -> OwnTable:
        """The sections that no server sent, and the conflicts that they are part of."""
        names = {source.name for source in self._sources}
        sections = {name: section for name, section in self.table.sections().items() if name in names}
        involved = (c for c in self.table.conflicts() if c.loser.source in names or c.winner.source in names)
        return OwnTable(self._own_changes, {n: s for n, s in sections.items() if s.routes}, tuple(involved))

    def live(self) -> Revision | None:
        """The revision of this agent's own table that is live."""
        return self._feed.live

    def applied(self) -> Revision | None:
        """The newest revision of the server's stream whose every change of routes is live."""
        live = self._feed.live
        if live is None:
            return None
        while self._marks and self._marks[0][0] <= live.number:
            self._reached = self._marks.popleft()
        return self._reached[1] if self._reached and self._reached[0] <= live.number else None

    def problems(self) -> tuple[str, ...]:
        """What is wrong now, a line each, for a person."""
        found = [f"{name}: {text}" for name, text in self._failures.items()]
        found += [f"{source.name}: {problem}" for source in self._sources for problem in source.problems()]
        found += _some(self.table.conflicts(), _lost)
        found += _some([(s, *item) for s, refused in self._refused.items() for item in refused.items()], _refusal)
        found += _some(self._names.problems(), str)
        return (*found, *self._feed.problems(), *(self._snapshot.problems() if self._snapshot else ()))

    async def _feed_for_ever(self) -> None:
        """Feed, at first only once the sources are current if the sink has a table: it is better than our kept one.

        Ours holds no grants and withholds addresses, which would interrupt people while an agent is replaced.
        """
        with contextlib.suppress(MooringError, TimeoutError):
            async with asyncio.timeout(self._adopt_s):
                while await self._names.applied() and self._is_behind():  # noqa: ASYNC110 - neither announces it
                    await asyncio.sleep(0.05)
        await self._feed.run()

    def _is_behind(self) -> bool:
        return any(map(math.isinf, self.stale().values()))

    async def _follow(self, source: RouteSource) -> None:
        attempt = 0
        while True:
            try:
                async with aclosing(source.watch()) as changes:
                    async for change in changes:
                        self._take(source, change)
                        attempt = 0
                log.error("a source ended", source=source.name)
            except Exception as error:
                # A source that fails over one bad section must not take the others' routes out of date with it.
                log.exception("a source failed", source=source.name)
                self._failures[source.name] = f"{type(error).__name__}: {error}"
            await asyncio.sleep(self._backoff.delay(attempt))
            attempt += 1

    def _take(self, source: RouteSource, change: SectionChange) -> None:
        self.table.apply(self._allowed(change), source.rank if change.rank is None else change.rank)
        self._own_changes += change.source == source.name
        self._failures.pop(source.name, None)
        if change.revision is not None:
            self._marks.append((self.table.revision.number, change.revision))

    def _allowed(self, change: SectionChange) -> SectionChange:
        """`change` without the routes that the rules refuse; what such a route said before goes too."""
        if self._rules is None:
            return change
        refused = {r.name: why for r in change.upserts if (why := self._rules.refusal(change.source, r))}
        before = {} if change.complete else self._refused.get(change.source, {})
        again = {route.name for route in change.upserts} | set(change.deletes)
        self._refused[change.source] = {name: why for name, why in before.items() if name not in again} | refused
        if not refused:
            return change
        log.warning("routes are refused", source=change.source, routes=refused)
        upserts = tuple(route for route in change.upserts if route.name not in refused)
        deletes = change.deletes if change.complete else (*change.deletes, *refused)
        return replace(change, upserts=upserts, deletes=deletes)


def _some(problems: Sequence[Problem], line: Callable[[Problem], str]) -> list[str]:
    """The first of one kind as lines, and how many more there are: no text is made of what is left out."""
    left = len(problems) - MOST_NAMED
    named = [line(problem) for problem in problems[:MOST_NAMED]]
    return [*named, f"and {left} more like: {line(problems[-1])}"] if left > 0 else named


def _lost(conflict: Conflict) -> str:
    loser, winner = conflict.loser, conflict.winner
    return f"{loser.source}: {loser.name} is not served: {winner.name} of {winner.source} goes first"


def _refusal(problem: tuple[str, str, str]) -> str:
    source, name, why = problem
    return f"{source}: {name} is not served: {why}"
