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
    # The only point at which a signal is heeded: a thread would go on and start one that nobody ends.
    await asyncio.sleep(0)
    mooring.stop()
    asked = time.monotonic()
    mooring.start()
    return time.monotonic() - asked
