"""Keeps a route sink equal to the table, whatever happens to either."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import orjson
import structlog

from mooring.control.backoff import Backoff
from mooring.errors import Conflict, LimitExceeded, MooringError
from mooring.model.grants import Grants
from mooring.model.routes import Route
from mooring.routes.ports import Delta, Revision, RouteKey, RouteSink
from mooring.routes.table import RouteTable, Subscription
from mooring.routes.wire import route_document

log = structlog.get_logger(__name__)

SINK_S = 60.0
"""To apply a delta, or each part of one that does not fit: a table of 100,000 routes takes 20 s on a busy machine.

With less, such a table would be sent from its start for ever. nginx says by itself, and sooner, when it is silent.
"""
ANSWER_S = 5.0
"""To say which revision is live."""


class Feed:
    """Sends the table's changes to `sink`, and the whole table to one that has lost it (a fresh nginx).

    The sink is asked every `check_s` seconds what it has. What does not fit is left out and tried again every
    `full_retry_s` seconds, so that one route too many stops no other; until it fits, no new revision counts as live.
    Grants go as soon as they come, also while a table is sent.
    """

    def __init__(self, table: RouteTable, sink: RouteSink, *, check_s: float = 0.25, full_retry_s: float = 5.0) -> None:
        self._table = table
        self._sink = sink
        self._check_s = check_s
        self._full_retry_s = full_retry_s
        # Short, since a restarted nginx serves nothing until its table has come.
        self._backoff = Backoff(first=0.02, most=0.25)
        self._live: Revision | None = None
        self._in_doubt = False
        self._problems: dict[str, str] = {}
        self._granting = asyncio.Lock()
        self._refused: dict[RouteKey, None] = {}
        self._retry_at = 0.0

    @property
    def live(self) -> Revision | None:
        """The table's revision whose routes are live as a whole; None when none is known to be."""
        return self._live

    def problems(self) -> tuple[str, ...]:
        """What is wrong now, for a person."""
        return tuple(dict.fromkeys(self._problems.values()))

    async def run(self) -> None:
        """Feed for ever; `run_grants` is to run beside it."""
        with self._table.subscribe() as changes:
            await self._for_ever("table", lambda: self._step(changes))

    async def run_grants(self) -> None:
        """Have the sink let in by the table's newest grants, for ever, whatever `run` is waiting for."""
        with self._table.subscribe() as changes:
            await self._for_ever("grants", lambda: self._step_grants(changes))

    async def _for_ever(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        while True:
            try:
                await step()
            except MooringError as error:
                self._note(what, error.detail)
            except TimeoutError:
                self._note(what, "nginx does not answer the agent")
            except Exception as error:
                log.exception("the route sink failed")
                self._note(what, f"{type(error).__name__}: {error}")
            else:
                attempt = 0
                continue
            await asyncio.sleep(self._backoff.delay(attempt))
            attempt += 1

    async def _step_grants(self, changes: Subscription) -> None:
        _, delta = await anext(changes)
        # Those that an earlier agent left hold until the server has been heard.
        if self._table.grants is None or (delta.grants is None and not delta.complete):
            return
        try:
            await self._grant()
        except BaseException:
            changes.restart()
            raise

    async def _grant(self) -> None:
        problem = None
        # In turn, and each takes the newest when its turn has come: none undoes a later one.
        async with self._granting, asyncio.timeout(SINK_S):
            try:
                await self._sink.grant(self._table.grants or Grants())
            except LimitExceeded as error:
                # Others may fit; to send these again, or routes because of them, helps nobody.
                problem = error.detail
        self._note("grants", problem)

    async def _step(self, changes: Subscription) -> None:
        if self._in_doubt:
            # A sink that is away is asked, not sent the whole table again and again.
            await self._applied()
            self._in_doubt = False
        try:
            async with asyncio.timeout(self._check_s):
                revision, delta = await anext(changes)
        except TimeoutError:
            await self._check(changes)
            return
        try:
            await self._apply(revision, delta)
        except Conflict:
            changes.restart()
            if delta.complete:
                raise
        except BaseException:
            # Whether it arrived is not known, so a later delta would be worked out against the wrong table.
            self._live, self._in_doubt = None, True
            changes.restart()
            raise

    async def _applied(self) -> Revision | None:
        async with asyncio.timeout(ANSWER_S):
            return await self._sink.applied()

    async def _check(self, changes: Subscription) -> None:
        if await self._applied() != self._live:
            log.info("the gateway has lost its table: sending all of it")
            self._live = None
            changes.restart()
        elif self._refused and asyncio.get_running_loop().time() >= self._retry_at:
            changes.note(Delta(deletes=tuple(self._refused)))
            self._refused.clear()
        elif not self._refused:
            self._note("table", None)

    async def _apply(self, revision: Revision, delta: Delta) -> None:
        await self._apply_routes(revision, delta)
        if delta.complete:
            # Behind the routes: an nginx that was started anew between the two would have a table and no grants.
            await self._grant()

    async def _apply_routes(self, revision: Revision, delta: Delta) -> None:
        if delta.complete:
            self._refused.clear()
        base = self._live if self._live and not delta.complete else Revision(revision.epoch, 0)
        at = base if self._refused else revision
        try:
            await self._send(at, delta)
        except LimitExceeded as error:
            # The smallest first: so most routes are served, and a huge one displaces none.
            smallest_first = replace(delta, upserts=tuple(sorted(delta.upserts, key=_size)))
            refused = [key for key, _ in await self._fit(base, smallest_first)]
            # What such a route said before may be wrong by now: its address may belong to somebody else.
            await self._send(base, Delta(deletes=tuple(refused)))
            self._live = base
            self._refused.update(dict.fromkeys(refused))
            self._retry_at = asyncio.get_running_loop().time() + self._full_retry_s
            self._note("table", f"{len(self._refused)} routes do not fit into the gateway: {error.detail}")
            return
        self._live = at
        if not self._refused:
            self._note("table", None)
        elif delta.deletes:
            self._retry_at = 0.0  # There may be room now.

    async def _fit(self, base: Revision, delta: Delta) -> tuple[tuple[RouteKey, Route], ...]:
        """Apply as much of `delta` as fits, at the old revision `base`. The routes that do not."""
        if len(delta.upserts) == 1 and delta == Delta(delta.upserts):
            return delta.upserts if not await self._fits(base, delta) else ()
        if await self._fits(base, delta):
            return ()
        half = len(delta.upserts) // 2
        first = await self._fit(base, replace(delta, upserts=delta.upserts[:half]))
        return first + await self._fit(base, Delta(delta.upserts[half:]))

    async def _fits(self, base: Revision, delta: Delta) -> bool:
        try:
            await self._send(base, delta)
        except LimitExceeded:
            if not delta.upserts:
                raise
            return False
        return True

    async def _send(self, revision: Revision, delta: Delta) -> None:
        async with asyncio.timeout(SINK_S):
            await self._sink.apply(revision, delta)

    def _note(self, what: str, problem: str | None) -> None:
        before = self._problems.pop(what, None)
        if problem is not None:
            self._problems[what] = problem
        if problem is not None and problem != before:
            log.warning("the gateway is not up to date", what=what, reason=problem)
        elif problem is None and before is not None:
            log.info("the gateway is up to date again", what=what)


def _size(entry: tuple[RouteKey, Route]) -> int:
    return len(orjson.dumps(route_document(entry[1])))
