"""How long a person waits for the second `mooring up`: from the command until its line with the link.

The home exists and so does what the set-up installs, as after a reboot; the workspaces of before are stopped.
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.mooring import Mooring, installation

RUNS = 10
_LIMIT_MS = 3000.0


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with installation() as mooring:
        samples = [await _sample(mooring) * 1000 for _ in range(RUNS)]
        await _heed_signals()
    return [
        {
            "name": "the second start until it is ready",
            "value": statistics.median(samples),
            "unit": "ms",
            "limit": _LIMIT_MS,
            "note": f"median of {RUNS}; worst {max(samples):.0f}",
        }
    ]


async def _sample(mooring: Mooring) -> float:
    """Seconds of one start of a home that another `mooring up` has left."""
    await _heed_signals()
    mooring.stop()
    asked = time.monotonic()
    mooring.start()
    return time.monotonic() - asked


async def _heed_signals() -> None:
    """Only here is a signal that came meanwhile heeded: a thread would go on and start one that nobody ends."""
    # One turn of the loop reads the signal, the next one hears of it: `sleep(0)` is over before.
    await asyncio.sleep(0.01)
