"""CPU per proxied request: our gateway with 10,000 hosts, access check, metrics and activity, beside plain nginx.

One worker each, the same backend, the same client with the same signed cookies, rounds in turn. The figure is the
worker's own user and system time divided by the requests that the client counted, once with every request to a random
one of the 10,000 hosts, once with as many hosts as connections, as browsers ask.
"""

import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import CONNECTIONS, HOSTS, KEY, cpu_seconds, load, many_routes, plain_nginx, workers
from mooring.model.grants import Grants
from support.nginx import gateway

# A client's connection carries requests for one host, so as many hosts as connections are busy at a time.
_ACTIVE = CONNECTIONS
# On a machine that others use single rounds differ by a tenth, and one minute from the next: many short rounds, not
# a few long ones. 2 s are some 100,000 requests, beside which opening 64 connections is nothing.
_ROUNDS = 16
_SECONDS = 2
_LIMIT = 1.4


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory() as folder:
        async with _both(Path(folder)) as (ours, plain):
            samples: dict[str, list[float]] = {"plain": [], "ours": [], "plain, spread": [], "spread": []}
            for _, port in (plain, ours):
                await load(port, Path(folder), seconds=_SECONDS)
            for _ in range(_ROUNDS):
                for name, (pid, port), active in (
                    ("plain", plain, _ACTIVE),
                    ("ours", ours, _ACTIVE),
                    ("plain, spread", plain, HOSTS),
                    ("spread", ours, HOSTS),
                ):
                    samples[name].append(await _cost(pid, port, Path(folder), active))
    median = {name: statistics.median(values) for name, values in samples.items()}

    def times(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(samples[one], samples[other], strict=True))

    note = f"{HOSTS} hosts in the table, {_ACTIVE} of them asked"
    return [
        {"name": "gateway CPU a request", "value": median["ours"], "unit": "µs", "limit": None, "note": note},
        {"name": "  plain nginx", "value": median["plain"], "unit": "µs", "limit": None},
        {"name": "  ours / plain nginx", "value": times("ours", "plain"), "unit": "times", "limit": _LIMIT},
        {"name": f"  asked at random for all {HOSTS}", "value": median["spread"], "unit": "µs", "limit": None},
        {
            "name": "  ours / plain nginx asked the same",
            "value": times("spread", "plain, spread"),
            "unit": "times",
            "limit": _LIMIT,
        },
    ]


@asynccontextmanager
async def _both(folder: Path) -> AsyncIterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(worker's pid, port) of our gateway and of a plain nginx, both in front of one backend."""
    async with (
        plain_nginx(folder / "backend", 'return 200 "a body of thirty-three bytes here\\n";') as (_, backend),
        plain_nginx(folder / "plain", "proxy_pass http://backend;", upstream=backend) as plain,
        gateway(folder / "ours", workers=1) as ours,
    ):
        await ours.publish(*many_routes(f"127.0.0.1:{backend}"), grants=Grants(keys=(KEY,)))
        (pid,) = workers(ours.nginx.pid)
        yield (pid, ours.port), plain


async def _cost(pid: int, port: int, folder: Path, active: int) -> float:
    """Microseconds of the worker's CPU for each request."""
    before = cpu_seconds(pid)
    requests = await load(port, folder, seconds=_SECONDS, active=active)
    return (cpu_seconds(pid) - before) / requests * 1e6
