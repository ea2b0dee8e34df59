"""One start of an editor as the reconciler follows it: how long it has taken, and how long it may be silent."""

from dataclasses import dataclass

from mooring.model.workspace import Phase
from mooring.workspaces.ports import Observation

PATIENCE_S = 3.0
_ADOPTED_PATIENCE_S = 2.0
_FIRST_PROBE_S = 0.02
SLOWEST_PROBE_S = 0.25


@dataclass(slots=True)
class Start:
    """On the monotonic clock. `patience_s`: how long it may be silent while it runs."""

    generation: int
    restarts: int
    began: float
    deadline: float
    answered: bool = False
    patience_s: float = PATIENCE_S
    silent_since: float | None = None

    def adopt(self, *, answered: bool, ran: bool) -> None:
        """Take it over from a server before this one: it `answered` there, or `ran` and was silent at last."""
        if answered or ran:
            # What has run is never ended because it is silent.
            self.deadline = float("inf")
        if answered:
            # Perhaps the gateway does not have its routes yet; perhaps the machine was rebooted and nothing runs.
            self.answered, self.patience_s = True, _ADOPTED_PATIENCE_S

    def pace_s(self, now: float) -> float:
        """Seconds until the next probe: a twentieth of what it took so far, so that little is added to it."""
        return min(SLOWEST_PROBE_S, max(_FIRST_PROBE_S, (now - self.began) / 20))

    def ended(self, seen: Observation) -> str:
        """That it ended, for a person; `seen` is of the start after it."""
        count = seen.restarts - self.restarts
        often = f" {count} times" if count > 1 else ""
        return f"the editor ended{often} and was started again: {seen.reason}".rstrip(": ")


def same_start(before: Observation, seen: Observation) -> bool:
    """Whether both are of one editor's process that was started and not ended."""
    is_up = before.phase is seen.phase is Phase.starting
    return is_up and (before.generation, before.restarts) == (seen.generation, seen.restarts)
