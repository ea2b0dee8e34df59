"""CPU a proxied request by its kind, beside plain nginx that is asked the very same; see gateway_cpu for the method.

Plain nginx sends each of them to one address over kept connections, and leaves the path as it is: what we do beyond
that is in the figures. What must not be sent twice we send over a connection of its own, which its backend cannot just
have closed; that has a plain nginx beside it that does the same.
"""

import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import (
    CONNECTIONS,
    HOSTS,
    KEY,
    Asked,
    cpu_seconds,
    load,
    many_routes,
    plain_nginx,
    route,
    workers,
)
from mooring.model.grants import Grants
from mooring.model.routes import PORT, Backend, Filters, Route
from support.nginx import gateway

_ROUNDS = 5
_SECONDS = 2
_PATHS = "paths.test"
_SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*"}
_PAGE = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Upgrade-Insecure-Requests": "1",
}
_KINDS = {
    "a script's GET": Asked(headers=_SAME_ORIGIN),
    "a page": Asked(headers=_PAGE),
    "a POST of 200 bytes": Asked("POST", headers=_SAME_ORIGIN, body="x" * 200),
    "a GET below a path": Asked(host=_PATHS, path="/ws/w#/some/path?q=1", headers=_SAME_ORIGIN),
    "a GET with two backends": Asked(host="two#.test", headers=_SAME_ORIGIN),
}


async def run() -> list[dict[str, Any]]:
    """Rows for the table; only the usual request has a bound, in gateway_cpu."""
    samples: dict[str, list[list[float]]] = {kind: [] for kind in _KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with _all(folder) as (ours, plain, alone):
            for _ in range(_ROUNDS):
                for kind, asked in _KINDS.items():
                    targets = (ours, plain, alone) if asked.body else (ours, plain)
                    samples[kind].append([await _cost(pid, port, folder, asked) for pid, port in targets])
    return [row for kind, costs in samples.items() for row in _rows(kind, costs)]


def _rows(kind: str, costs: list[list[float]]) -> Iterator[dict[str, Any]]:
    ours = statistics.median(cost[0] for cost in costs)
    yield {"name": f"gateway CPU for {kind}", "value": ours, "unit": "µs", "limit": None}
    others = ("ours / plain nginx asked the same", "ours / the same without kept connections")
    for place, other in enumerate(others[: len(costs[0]) - 1], 1):
        times = statistics.median(cost[0] / cost[place] for cost in costs)
        note = f"plain nginx {statistics.median(cost[place] for cost in costs):.1f} µs"
        yield {"name": f"  {other}", "value": times, "unit": "times", "limit": None, "note": note}


def _below_paths(address: str) -> Iterator[Route]:
    """What a workspace without a host of its own has: its editor and its ports, below a path."""
    filters = Filters(strip_prefix=True)
    for number in range(HOSTS):
        below = route(number, address).model_copy(update={"host": _PATHS, "filters": filters})
        yield below.model_copy(update={"name": f"path-{number}", "path": f"/ws/w{number}/"})
        ports = {"path": f"/ws/w{number}/ports/{PORT}", "backends": (Backend(address=f"127.0.0.1:{PORT}"),)}
        yield below.model_copy(update={"name": f"path-port-{number}", **ports})


def _two_backends(address: str) -> Iterator[Route]:
    backend = Backend(address=address)
    for number in range(CONNECTIONS):
        update = {"name": f"two-{number}", "host": f"two{number}.test", "backends": (backend, backend)}
        yield route(number, address).model_copy(update=update)


@asynccontextmanager
async def _all(folder: Path) -> AsyncIterator[tuple[tuple[int, int], ...]]:
    """(worker's pid, port) of our gateway, of a plain nginx and of one that keeps no connection to the backend."""
    async with (
        plain_nginx(folder / "backend", 'return 200 "a body of thirty-three bytes here\\n";') as (_, backend),
        plain_nginx(folder / "plain", "proxy_pass http://backend;", upstream=backend) as plain,
        plain_nginx(folder / "alone", f"proxy_pass http://127.0.0.1:{backend};") as alone,
        gateway(folder / "ours", workers=1) as ours,
    ):
        address = f"127.0.0.1:{backend}"
        routes = (*many_routes(address), *_below_paths(address), *_two_backends(address))
        await ours.publish(*routes, grants=Grants(keys=(KEY,)))
        (pid,) = workers(ours.nginx.pid)
        yield (pid, ours.port), plain, alone


async def _cost(pid: int, port: int, folder: Path, asked: Asked) -> float:
    """Microseconds of the worker's CPU for each request; as many routes are asked as there are connections."""
    await load(port, folder, seconds=1, active=CONNECTIONS, asked=asked)
    before = cpu_seconds(pid)
    requests = await load(port, folder, seconds=_SECONDS, active=CONNECTIONS, asked=asked)
    return (cpu_seconds(pid) - before) / requests * 1e6
