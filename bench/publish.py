"""From apply to live: how long a change takes until every worker serves it, by the size of the table.

The administration answers once the change is in the memory that all workers read, so its answer is the moment. 10,000
changes at each of three sizes, 100 a second; meanwhile a client asks on and must get no failed answer. Beside the time
that passed stands the processor time that the publisher took for a change, which does not grow with the machine's load.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import KEY, cookie, many_routes, route
from mooring.control.tasks import Tasks
from mooring.model.grants import Grants
from support.nginx import Gateway, gateway

_SIZES = (0, 1000, 10_000)
_SAMPLES = 10_000
_RATE = 100.0


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    rows = []
    for size in _SIZES:
        with tempfile.TemporaryDirectory() as folder:
            async with gateway(Path(folder)) as started:
                rows += await _at(started, size)
    return rows


async def _at(started: Gateway, size: int) -> list[dict[str, Any]]:
    address = "127.0.0.1:9"
    await started.publish(*many_routes(address, size), complete=True, grants=Grants(keys=(KEY,)))
    failed = [0]
    busy = time.process_time()
    async with Tasks("bench") as tasks:
        tasks.spawn("client", _ask(started, failed))
        samples = sorted([sample async for sample in _samples(started, size, _SAMPLES)])
    cpu_ms = (time.process_time() - busy) / _SAMPLES * 1000
    p99 = samples[int(len(samples) * 0.99)]
    label = f"publish at {size} routes"
    return [
        {"name": f"{label}, mean", "value": statistics.fmean(samples), "unit": "ms", "limit": 1.0},
        {"name": "  99th percentile", "value": p99, "unit": "ms", "limit": 5.0},
        {"name": "  worst", "value": samples[-1], "unit": "ms", "limit": 30.0},
        {"name": "  publisher's and client's CPU a change", "value": cpu_ms, "unit": "ms", "limit": None},
        {"name": "  failed requests", "value": failed[0], "unit": "", "limit": 0},
    ]


async def _samples(started: Gateway, size: int, count: int):  # noqa: ANN202 - an async generator of milliseconds
    begun = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / _RATE - time.monotonic()))
        changed = route(number % max(size, 100), f"127.0.0.1:{10 + number % 1000}")
        since = time.perf_counter()
        await started.publish(changed)
        yield (time.perf_counter() - since) * 1000


async def _ask(started: Gateway, failed: list[int]) -> None:
    """Ask for the page that the gateway itself answers a route of nobody with."""
    while True:
        reply = await started.get("h-none.test", Cookie=cookie(0))
        failed[0] += reply.status != 404
        await asyncio.sleep(0.01)
