"""A gateway worker's own memory with 10,000 routes, before and after each of them was asked for."""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import HOSTS, KEY, load, many_routes, plain_nginx, workers
from mooring.model.grants import Grants
from support.nginx import gateway

_LIMIT_MB = 24.0


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            plain_nginx(folder / "backend", 'return 200 "a body of thirty-three bytes here\\n";') as (_, backend),
            gateway(folder / "ours", workers=1) as ours,
        ):
            await ours.publish(*many_routes(f"127.0.0.1:{backend}"), grants=Grants(keys=(KEY,)))
            (pid,) = workers(ours.nginx.pid)
            published = own_megabytes(pid)
            await load(ours.port, folder, seconds=5)
            return [
                {"name": f"gateway worker with {HOSTS} routes", "value": published, "unit": "MB", "limit": _LIMIT_MB},
                {"name": "  all of them asked for", "value": own_megabytes(pid), "unit": "MB", "limit": _LIMIT_MB},
            ]


def own_megabytes(pid: int) -> float:
    """Private memory of the process; the dictionary is shared memory, whoever has touched it."""
    total, shared = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, second = line.split()[:2]
        if not first.endswith(":"):
            # The shared dictionary counts as private as long as no second worker has touched it.
            shared = second.endswith("s")
        elif first.startswith("Private_") and not shared:
            total += int(second)
    return total / 1024
