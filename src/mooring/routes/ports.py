"""The seams around the route table: where sections come from, and what applies the merged table."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from mooring.model.grants import Grants
from mooring.model.routes import Route

FIRST_RANK = 100
"""Built-in sources have ranks below: a published section never wins against them."""
LAST_RANK = 1000


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """A point in the life of one table: `epoch` is drawn at random at its start, `number` counts up by one a change."""

    epoch: str
    number: int


@dataclass(frozen=True, slots=True)
class SectionChange:
    """A change of one source's section, applied as a whole.

    `complete` replaces the section by `upserts`; otherwise `deletes` are removed, then `upserts` added or replaced.
    `grants` None leaves them as they are; only the server's source may bring any. `rank` None is that of the source
    that brings the change; `revision` is the publisher's own, which a gateway reports once the change is live.
    """

    source: str
    upserts: tuple[Route, ...] = ()
    deletes: tuple[str, ...] = ()
    complete: bool = False
    grants: Grants | None = None
    rank: int | None = None
    revision: Revision | None = None


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """What identifies a route in the merged table."""

    source: str
    name: str


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference between two revisions of the merged table. `complete`: a snapshot, everything else is gone."""

    upserts: tuple[tuple[RouteKey, Route], ...] = ()
    deletes: tuple[RouteKey, ...] = ()
    complete: bool = False
    grants: Grants | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two routes that match the same; the loser is not served."""

    winner: RouteKey
    loser: RouteKey


class RouteSource(Protocol):
    """A place that sections come from. `name` is the source's, `rank` settles conflicts: the smaller wins."""

    name: str
    rank: int

    def watch(self) -> AsyncGenerator[SectionChange, None]:
        """A complete section first, then changes, for ever.

        Reconnects with backoff, and never publishes an empty section because the source is away: the last good one
        stays. A source that serves several sections (the server's stream) names each in its changes.
        """

    def stale_s(self) -> float:
        """Seconds since the source last proved that it is current; `inf` before the first time."""

    def problems(self) -> tuple[str, ...]:
        """What is wrong with it now, a line each, for a person; empty when all is well."""


class RouteSink(Protocol):
    """Applies the merged table somewhere."""

    async def apply(self, revision: Revision, delta: Delta) -> None:
        """Make its routes live as a whole; applying them again changes nothing. Its grants come by `grant`.

        No number is too small or the same: what did not fit comes in parts at the revision before it. Raises
        `LimitExceeded` when it does not fit, then nothing of it is live; `Conflict` for a delta that is not complete
        when no table of the revision's epoch is live (a fresh nginx would get one with holes); `Unavailable` when it
        is not known whether it is live: the caller sends a complete one.
        """

    async def grant(self, grants: Grants) -> None:
        """Let in by these, and by nothing that was granted before; it waits for no `apply`, nor for itself.

        Call it for one after the other. Raises `LimitExceeded` when they do not fit: what they withdraw is withdrawn
        then, sessions that ended too as long as there is room for those, and nothing new is granted; `Unavailable`
        when it is not known which hold.
        """

    async def applied(self) -> Revision | None:
        """The revision that is live, None when none is (a fresh nginx). Raises `Unavailable`."""
