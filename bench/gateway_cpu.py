"""CPU per proxied request: our gateway with 10,000 hosts, access check, metrics and activity, beside plain nginx.

One worker each, the same backend, the same client with the same signed cookies, rounds in turn. The figure is the
worker's own user and system time divided by the requests that the client counted, once with every request to a random
one of the 10,000 hosts, once with as many hosts as connections, as browsers ask. Both bounds are for a worker that is
kept busy. Plain nginx then keeps its backend and client busy, too, and a slower gateway has to wake them: what each
costs where neither is busy, at one and the same load, is printed beside.
"""

import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import (
    CONNECTIONS,
    HOSTS,
    KEY,
    USUAL,
    Asked,
    cpu_seconds,
    load,
    many_routes,
    plain_nginx,
    workers,
)
from mooring.model.grants import Grants
from support.nginx import gateway

# A client's connection carries requests for one host, so as many hosts as connections are busy at a time.
_ACTIVE = CONNECTIONS
# On a machine that others use single rounds differ by a tenth, and one minute from the next: many short rounds, not
# a few long ones. 2 s are some 100,000 requests, beside which opening 64 connections is nothing.
_ROUNDS = 16
_SECONDS = 2
_LIMIT = 1.4
# Some 10,000 requests a second: a fourth of what the slower one can.
_EASY = Asked(pause_ms=6)


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory() as folder:
        async with _both(Path(folder)) as (ours, plain):
            samples: dict[str, list[float]] = defaultdict(list)
            for _, port in (plain, ours):
                await load(port, Path(folder), seconds=_SECONDS)
            for _ in range(_ROUNDS):
                for name, (pid, port), active, asked in (
                    ("plain", plain, _ACTIVE, USUAL),
                    ("ours", ours, _ACTIVE, USUAL),
                    ("plain, spread", plain, HOSTS, USUAL),
                    ("spread", ours, HOSTS, USUAL),
                    ("plain, easy", plain, _ACTIVE, _EASY),
                    ("easy", ours, _ACTIVE, _EASY),
                ):
                    samples[name].append(await _cost(pid, port, Path(folder), active, asked))
    note = f"{HOSTS} hosts in the table, {_ACTIVE} of them asked"
    return [
        {"name": "gateway CPU a request", **_median(samples["ours"]), "note": note},
        {"name": "  plain nginx", **_median(samples["plain"])},
        {"name": "  ours / plain nginx", **_times(samples["ours"], samples["plain"], _LIMIT)},
        {"name": f"  asked at random for all {HOSTS}", **_median(samples["spread"])},
        {
            "name": "  ours / plain nginx asked the same",
            **_times(samples["spread"], samples["plain, spread"], _LIMIT),
        },
        {
            "name": "  neither kept busy",
            **_median(samples["easy"]),
            "note": f"{_ACTIVE} asked, {_EASY.pause_ms} ms apart",
        },
        {"name": "  ours / plain nginx at that load", **_times(samples["easy"], samples["plain, easy"], None)},
    ]


def _median(values: list[float]) -> dict[str, Any]:
    return {"value": statistics.median(values), "unit": "µs", "limit": None}


def _times(ours: list[float], plain: list[float], limit: float | None) -> dict[str, Any]:
    value = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    return {"value": value, "unit": "times", "limit": limit}


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


async def _cost(pid: int, port: int, folder: Path, active: int, asked: Asked) -> float:
    """Microseconds of the worker's CPU for each request."""
    before = cpu_seconds(pid)
    requests = await load(port, folder, seconds=_SECONDS, active=active, asked=asked)
    return (cpu_seconds(pid) - before) / requests * 1e6
