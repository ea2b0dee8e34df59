"""The module proxy's figures beside its peers': what a hit and an absence cost, many clients at once, memory.

All of it has a local upstream, and all proxies do the same work in the same run. CPU is a proxy's own user and system
time with that of the processes it started, which noise hardly moves: the least of two alternating rounds.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from bench.goproxy_servers import Origin, Server, ours, peers, started
from support.goupstream import DATABASE, Fault, Upstream

_MODULE = "example.com/x/@v/v1.0.0"
_ZIP = 6 * 2**20
_ROUNDS = 2
_ROUND_S = 1.5
_CLIENTS = 200
_LARGE = 400 * 2**20
_KINDS = (
    ("warm .info", f"{_MODULE}.info", 16, 1e6 / 3000),
    ("warm .mod", f"{_MODULE}.mod", 16, None),
    ("warm zip of 6 MB", f"{_MODULE}.zip", 4, None),
    ("absent path again", "example.com/none/@v/list", 16, 1e6 / 2000),
)
Row = dict[str, Any]


async def run() -> list[Row]:
    """All figures."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-bench-"))
    try:
        with Upstream(folder / "upstream").serving() as upstream:
            return await _measured(folder, upstream)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, value: float, unit: str, limit: float | None, note: str = "") -> Row:
    return {"name": f"goproxy: {name}", "value": value, "unit": unit, "limit": limit, "note": note}


async def _measured(folder: Path, upstream: Upstream) -> list[Row]:
    upstream.publish("example.com/x", "v1.0.0", {"data": os.urandom(_ZIP)})
    origin = Origin(upstream.url, upstream.sumdb, f"{upstream.url}/sumdb/{DATABASE}")
    local = ours("--upstream", upstream.url, "--sumdb", upstream.sumdb)
    with ExitStack() as stack:
        servers = [stack.enter_context(started(local, folder / "ours"))]
        servers += [stack.enter_context(started(peer, folder / name)) for name, peer in peers(origin).items()]
        rows = await _requests(servers)
        for number, server in enumerate(servers):
            rows += await _at_once(server, upstream, number)
    with started(local, folder / "large") as server:
        return [*rows, await _large(server, upstream)]


def _named(server: Server, label: str, limit: float | None) -> tuple[str, float | None]:
    """Bounds are ours; a peer's row has its name."""
    return (label, limit) if server.name == "mooring" else (f"{label}: {server.name}", None)


async def _requests(servers: list[Server]) -> list[Row]:
    rows = []
    for label, path, clients, bound in _KINDS:
        best: dict[str, tuple[float, float]] = {}
        for server in servers:
            await _get(server, path)
        for _ in range(_ROUNDS):
            for server in servers:
                cost, rate = await _cost(server, path, clients)
                best[server.name] = min(best.get(server.name, (cost, rate)), (cost, rate))
        for server in servers:
            name, limit = _named(server, label, bound)
            cost, rate = best[server.name]
            rows.append(_row(name, cost * 1e6, "µs CPU", limit, f"{rate:,.0f}/s beside its client"))
    return rows


async def _cost(server: Server, path: str, clients: int) -> tuple[float, float]:
    """Seconds of CPU a request, and requests a second."""
    before, began = server.cpu(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_many(server, path, began + _ROUND_S)) for _ in range(clients)]
    seconds = time.perf_counter() - began
    total = sum(task.result() for task in tasks)
    return (server.cpu() - before) / total, total / seconds


async def _many(server: Server, path: str, until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**20)
    count = 0
    while count == 0 or time.perf_counter() < until:
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await _answer(reader)
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
        return
    rest = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while rest:
        rest -= len(await reader.read(min(rest, 2**20)))


async def _get(server: Server, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**20)
    writer.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    received = 0
    while chunk := await reader.read(2**18):
        received += len(chunk)
    writer.close()
    await writer.wait_closed()
    return received


async def _at_once(server: Server, upstream: Upstream, number: int) -> list[Row]:
    """A module of 1 MB whose upstream is a long way off: 100 ms to the first byte, then 3 MB a second."""
    took, path, whole = [], "", 0
    for version, clients in ((f"v1.{number}.0", 1), (f"v1.{number}.1", _CLIENTS)):
        archive = upstream.publish("example.com/two-hundred", version, {"data": os.urandom(2**20)})
        path = f"example.com/two-hundred/@v/{version}.zip"
        upstream.faults[path] = Fault(delay_s=0.1, pace=lambda _at: time.sleep(0.02))  # noqa: TID251 - in its own thread
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_get(server, path)) for _ in range(clients)]
        took.append(time.perf_counter() - began)
        whole = sum(task.result() >= len(archive) for task in tasks)
    name, limit = _named(server, f"{_CLIENTS} clients, one cold module, last done", 1.3)
    note = f"{took[1]:.2f} s, one alone {took[0]:.2f} s; {whole} got all of it"
    fetches, most = _named(server, f"{_CLIENTS} clients, one cold module, fetches", 1)
    return [
        _row(name, took[1] / took[0], "times one client", limit, note),
        _row(fetches, upstream.asked[path], "upstream", most),
    ]


async def _large(server: Server, upstream: Upstream) -> Row:
    """Cold: received, verified and sent to 50 at the same time."""
    data = os.urandom(2**20) * (_LARGE // 2**20)
    archive = await asyncio.to_thread(upstream.publish, "example.com/large", "v1.0.0", {"data": data}, stored=True)
    del data
    await _get(server, f"{_MODULE}.zip")
    idle = server.memory("VmRSS")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_get(server, "example.com/large/@v/v1.0.0.zip")) for _ in range(50)]
    whole = sum(task.result() >= len(archive) for task in tasks)
    grown = server.memory("VmHWM") - idle
    return _row("50 clients pull a cold 400 MB zip, memory", grown, "MB above idle", 60, f"{whole} of 50 got all of it")
