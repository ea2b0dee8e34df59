"""What the gateways say of themselves: what they applied, what they see of their sources, activity and counters.

In memory: a gateway reports every two seconds, so a restarted server knows everything again at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from mooring.control.clock import Clock
from mooring.routes.listing import GatewayTable
from mooring.routes.ports import Revision

log = structlog.get_logger(__name__)

INPUT_S = 31 * 86400.0
"""Longer than the longest idle rule."""
_FEW = 1000
FORGET_S = 3600.0
"""A gateway that has been silent for an hour has been taken away."""


@dataclass(frozen=True, slots=True)
class SectionSize:
    """A section in a gateway's table: its rank, how many routes it has, and how many of them lost a conflict there."""

    rank: int
    routes: int
    lost: int


@dataclass(frozen=True, slots=True)
class Report:
    """One report.

    `sources`: seconds since each was current, None when it never was; `sections`: what is in its table, those of the
    server included; `activity`: seconds of the last input by
    workspace (since the epoch); `connections`: open ones by workspace; `metrics`: Prometheus text; `problems`:
    what is wrong there, a line each; `table`: the version of what only it knows of its table, None when it is nothing.
    """

    gateway: str
    applied: Revision | None
    sources: dict[str, float | None]
    activity: dict[str, float]
    connections: dict[str, int]
    workers: tuple[int, ...]
    restarts: int
    metrics: str
    problems: tuple[str, ...] = ()
    sections: Mapping[str, SectionSize] = field(default_factory=dict)
    table: str | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest report of a gateway, and how many seconds ago it came."""

    report: Report
    age_s: float


class Reports:
    """The newest report of each gateway, and the newest activity of each workspace over all of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[Report, float]] = {}
        self._input: dict[str, float] = {}
        self._prune_above = _FEW
        self._tables: dict[str, GatewayTable] = {}

    def take(self, report: Report) -> bool:
        """Remember it. Activity never goes back, and never lies ahead of our own clock.

        False when the gateway must send its table too: it is another than the one that is known here.
        """
        now = self._clock.now()
        before = self._heard.get(report.gateway)
        for problem in sorted({*report.problems} - {*(before[0].problems if before else ())}):
            log.warning("a gateway has a problem", gateway=report.gateway, problem=problem)
        self._heard[report.gateway] = (report, self._clock.monotonic())
        said = before[0].activity if before else {}
        for workspace, at in report.activity.items():
            # A gateway whose clock is ahead, or was, would keep a workspace awake for as long by saying it again.
            if said.get(workspace) != at:
                self._input[workspace] = min(max(self._input.get(workspace, 0.0), at), now)
        if len(self._input) > self._prune_above:
            # Workspaces that were deleted years ago; input older than any idle rule says nothing.
            self._input = {workspace: at for workspace, at in self._input.items() if at > now - INPUT_S}
            self._prune_above = 2 * len(self._input) + _FEW
        known = self._tables.get(report.gateway)
        if report.table is None:
            self._tables.pop(report.gateway, None)
        return report.table is None or (known is not None and known.version == report.table)

    def take_table(self, gateway: str, table: GatewayTable) -> None:
        """Remember what only `gateway` knows; it is forgotten with its reports."""
        self._tables[gateway] = table

    def tables(self) -> dict[str, GatewayTable]:
        """What only gateways know, by gateway."""
        heard = {heard.report.gateway for heard in self.heard()}
        self._tables = {name: table for name, table in self._tables.items() if name in heard}
        return dict(self._tables)

    def input_at(self, workspace_id: str) -> float:
        """Second (since the epoch) of the last input seen, 0 when none was."""
        return self._input.get(workspace_id, 0.0)

    def heard_s(self) -> float:
        """Seconds since the last report of any gateway; `inf` before the first."""
        return min((heard.age_s for heard in self.heard()), default=math.inf)

    def connections(self, workspace_id: str) -> int:
        """Open connections to a workspace, over all gateways."""
        return sum(heard.report.connections.get(workspace_id, 0) for heard in self.heard())

    def heard(self) -> tuple[Heard, ...]:
        """The newest report of every gateway that was not silent for an hour, by name."""
        now = self._clock.monotonic()
        self._heard = {name: item for name, item in self._heard.items() if now - item[1] < FORGET_S}
        return tuple(Heard(report, now - at) for _, (report, at) in sorted(self._heard.items()))
