"""How often the containers of a workspace died, and whether that is too often.

Kept in a file: a server that comes back must not begin to count anew, or a broken workspace would be restarted for
ever.
"""

from dataclasses import dataclass, field
from pathlib import Path

import orjson

from mooring.workspaces.processes.keeper.lifecycle import CRASH_WINDOW_S, CRASHES, FIRST_DELAY_S, MOST_DELAY_S

_FILE = "crashes.json"


@dataclass
class Crashes:
    """The deaths of one start (generation). `death` names the last one that was counted; `reason` is what came of it.

    `times` are seconds since the epoch, those of the last ten minutes; `due` is when to start again. `notices` are
    what went wrong beside the editor.
    """

    generation: int
    restarts: int = 0
    death: str = ""
    times: list[float] = field(default_factory=list)
    due: float = 0.0
    reason: str = ""
    failed: bool = False
    notices: tuple[str, ...] = ()

    def count(self, death: str, how: str, now: float) -> bool:
        """Count a death unless it is the one counted last; whether it was a new one."""
        if death == self.death:
            return False
        self.death = death
        self.restarts += 1
        self.times = [at for at in self.times if at > now - CRASH_WINDOW_S] + [now]
        count = len(self.times)
        self.failed = count >= CRASHES
        delay = min(MOST_DELAY_S, FIRST_DELAY_S * 2 ** (count - 1))
        self.due = now + delay
        if self.failed:
            minutes = int(CRASH_WINDOW_S / 60)
            self.reason = f"the editor ended {count} times in {minutes} minutes; the last one {how}"
        else:
            self.reason = f"the editor {how}; it starts again in {delay:.1f} s"
        return True

    def fail(self, reason: str) -> None:
        """Give up for another reason than the number of deaths."""
        self.failed, self.reason = True, reason


def load(folder: Path, generation: int) -> Crashes:
    """Those kept in `folder` for that start; none when there is no file, or one of another start."""
    try:
        document = orjson.loads((folder / _FILE).read_bytes())
        kept = Crashes(**{**document, "notices": tuple(document["notices"])})
    except (OSError, orjson.JSONDecodeError, TypeError, KeyError):
        return Crashes(generation)
    return kept if kept.generation == generation else Crashes(generation)


def save(folder: Path, crashes: Crashes) -> None:
    """Keep them. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder / f"{_FILE}.new"
    new.write_bytes(orjson.dumps(crashes))
    new.replace(folder / _FILE)
