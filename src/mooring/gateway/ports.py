"""What the agent needs of the data plane besides `routes.ports.RouteSink`. Adapters: `nginx.py`, `memory.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TelemetrySnapshot:
    """What the data plane counted until now.

    `activity`: the last input of each workspace, in seconds since the epoch; a workspace without any is absent.
    `connections`: the open tunnels of each workspace; one without any may be absent. `workers`: process ids that
    accept requests now. `restarts`: how often workers or the master were replaced after a crash since the agent
    began. `metrics`: counters in the Prometheus text format (version 0.0.4), ending in a newline unless empty.
    """

    activity: Mapping[str, float] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    workers: tuple[int, ...] = ()
    restarts: int = 0
    metrics: str = ""


class Telemetry(Protocol):
    """Reads the counters of the data plane."""

    async def read(self) -> TelemetrySnapshot:
        """The newest counters, within a second. Raises `Unavailable` while the data plane does not answer."""
