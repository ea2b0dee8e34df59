"""How often the containers of a workspace died, and what else went wrong in it, in a file.

A server that comes back must not begin to count anew, or a broken workspace would be restarted for ever, and must
still tell of a clone that failed.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

import orjson

from mooring.workspaces.crashes import MOST_DELAY_S, judged

_FILE = "crashes.json"


@dataclass
class Crashes:
    """The deaths of one start (generation). `death` names the last one that was counted; `reason` is what came of it.

    `times` are seconds since the epoch, those of the last ten minutes; `due` is when to start again. `notices` are
    what went wrong beside the editor, `ways` the run of the container whose ways were opened (`ways.py`).
    """

    generation: int
    restarts: int = 0
    death: str = ""
    times: list[float] = field(default_factory=list)
    due: float = 0.0
    reason: str = ""
    failed: bool = False
    notices: tuple[str, ...] = ()
    ways: str = ""

    def count(self, death: str, how: str, now: float) -> bool:
        """Count a death unless it is the one counted last; whether it was a new one."""
        if death == self.death:
            return False
        self.death = death
        self.restarts += 1
        self.times, delay, self.reason = judged(self.times, now, how)
        self.failed = delay is None
        self.due = now + (delay or 0.0)
        return True

    def wait_s(self, now: float) -> float:
        """Seconds until it is to start again; never more than any delay is, however the clock was set since."""
        left = self.due - now
        return left if left <= MOST_DELAY_S else 0.0

    def fail(self, reason: str) -> None:
        """Give up for another reason than the number of deaths."""
        self.failed, self.reason = True, reason


def load(folder: Path, generation: int) -> Crashes:
    """Those kept in `folder` for that start; none when there is no file, or one of another start."""
    try:
        document = orjson.loads((folder / _FILE).read_bytes())
        # A newer build may have kept more: an older one that comes back must not take it for no file.
        known = {item.name: document[item.name] for item in fields(Crashes) if item.name in document}
        kept = Crashes(**{**known, "notices": tuple(document["notices"])})
    except (OSError, orjson.JSONDecodeError, TypeError, KeyError):
        return Crashes(generation)
    return kept if kept.generation == generation else Crashes(generation)


def are_kept(folder: Path) -> bool:
    """Whether any are: nothing of a workspace is made on the engine before they are kept, and they go with it."""
    return (folder / _FILE).exists()


def save(folder: Path, crashes: Crashes) -> None:
    """Keep them. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder / f"{_FILE}.new"
    new.write_bytes(orjson.dumps(crashes))
    new.replace(folder / _FILE)
