"""From publishing a route until every worker has answered a request by it, by the size of the table.

10,000 changes at each of three sizes, 100 a second. Each changed route is a redirect to its own number, and on one open
connection to each worker the very next request must be answered with that number: an older one is a failed request, as
is any other answer to the client that meanwhile asks on. Beside a slow sample stands how long the publisher and the
workers waited for a processor in it, which is the machine's, and how long Python's collector ran, which is ours.
"""

import asyncio
import gc
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import KEY, cookie, many_routes, route
from mooring.control.tasks import Tasks
from mooring.model.grants import Grants
from mooring.model.routes import Filters, Redirect
from support.nginx import Gateway, gateway

_SIZES = (0, 1000, 10_000)
_SAMPLES = 10_000
_RATE = 100.0
_SLOW_MS = 5.0
_MOST_CONNECTIONS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """Milliseconds: until every worker had answered by the change, until nginx had it, waiting, collecting."""

    served: float
    applied: float
    waited: float
    collected: float
    stale: int


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    rows = []
    for size in _SIZES:
        with tempfile.TemporaryDirectory() as folder:
            async with gateway(Path(folder)) as started:
                rows += await _at(started, size)
    return rows


async def _at(started: Gateway, size: int) -> list[dict[str, Any]]:
    await started.publish(*many_routes("127.0.0.1:9", size), complete=True, grants=Grants(keys=(KEY,)))
    failed = [0]
    busy = time.process_time()
    async with Tasks("bench") as tasks:
        client = tasks.spawn("client", _ask(started, failed))
        samples = [sample async for sample in _samples(started, size)]
        if client.done():
            # It goes on for ever: what ended it was a request that was not even answered.
            client.result()
    cpu_ms = (time.process_time() - busy) / _SAMPLES * 1000
    served = sorted(sample.served for sample in samples)
    worst = max(samples, key=lambda sample: sample.served)
    slow = [sample for sample in samples if sample.served > _SLOW_MS]
    waited = sum(sample.waited > sample.served / 2 for sample in slow)
    collected = sum(sample.collected > sample.served / 2 for sample in slow)
    label = f"publish at {size} routes"
    return [
        {"name": f"{label}, mean", "value": statistics.fmean(served), "unit": "ms", "limit": 1.0},
        {"name": "  99th percentile", "value": served[int(_SAMPLES * 0.99)], "unit": "ms", "limit": 5.0},
        {
            "name": "  worst",
            "value": served[-1],
            "unit": "ms",
            "limit": 30.0,
            "note": f"waited {worst.waited:.2g} ms for a processor, collected for {worst.collected:.2g}",
        },
        {
            "name": f"  samples above {_SLOW_MS:g} ms",
            "value": len(slow),
            "unit": "",
            "limit": None,
            "note": f"mostly waiting for a processor: {waited}; mostly collecting: {collected}",
        },
        {
            "name": "  until nginx answers that it has it, mean",
            "value": statistics.fmean(sample.applied for sample in samples),
            "unit": "ms",
            "limit": None,
        },
        {"name": "  publisher's and clients' CPU a change", "value": cpu_ms, "unit": "ms", "limit": None},
        {
            "name": "  failed requests",
            "value": failed[0] + sum(sample.stale for sample in samples),
            "unit": "",
            "limit": 0,
        },
    ]


async def _samples(started: Gateway, size: int) -> AsyncIterator[Sample]:
    workers = (await started.sink.read()).workers
    begun = time.monotonic()
    with _connections(started, workers) as connections, _collections() as collected:
        for number in range(_SAMPLES):
            await asyncio.sleep(max(0.0, begun + number / _RATE - time.monotonic()))
            which = number % max(size, 100)
            changed = route(which, "127.0.0.1:9").model_copy(
                update={"filters": Filters(redirect=Redirect(path=f"/changed-{number}"))}
            )
            question = _question(started, which)
            waiting, collecting = _waited_ms(workers), collected[0]
            since = time.perf_counter()
            await started.publish(changed)
            applied = time.perf_counter()
            answers = _asked(connections, question)
            served = time.perf_counter()
            yield Sample(
                (served - since) * 1000,
                (applied - since) * 1000,
                _waited_ms(workers) - waiting,
                collected[0] - collecting,
                sum(f"/changed-{number}\r\n".encode() not in answer for answer in answers),
            )


def _question(started: Gateway, which: int) -> bytes:
    authority = started.authority(f"h{which}.test")
    return f"GET / HTTP/1.1\r\nHost: {authority}\r\nCookie: {cookie(which)}\r\n\r\n".encode()


def _asked(connections: list[socket.socket], question: bytes) -> list[bytes]:
    """One answer of each worker. Without the event loop, whose turns are no part of what is measured."""
    for connection in connections:
        connection.sendall(question)
    return [connection.recv(65536) for connection in connections]


@contextmanager
def _connections(started: Gateway, workers: tuple[int, ...]) -> Iterator[list[socket.socket]]:
    """A kept-alive connection to each worker: as many are opened as it takes to meet them all."""
    found: dict[int, socket.socket] = {}
    opened = []
    try:
        while len(found) < len(workers) and len(opened) < _MOST_CONNECTIONS:
            connection = socket.create_connection(("127.0.0.1", started.port), timeout=10)
            opened.append(connection)
            found.setdefault(_owner(started.port, connection, workers), connection)
        if len(found) < len(workers):
            raise RuntimeError(f"{_MOST_CONNECTIONS} connections met {len(found)} of {len(workers)} workers")
        yield list(found.values())
    finally:
        for connection in opened:
            connection.close()


def _owner(port: int, connection: socket.socket, workers: tuple[int, ...]) -> int:
    """The worker that has accepted a connection."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        inode = _inode(port, connection)
        for worker in workers:
            if f"socket:[{inode}]" in _descriptors(worker):
                return worker
    raise RuntimeError("no worker accepted a connection within 10 s")


def _inode(port: int, connection: socket.socket) -> str:
    """The inode of nginx's end of a connection, from the kernel's list; 0 before it is accepted."""
    ends = [f":{port:04X}", f":{connection.getsockname()[1]:04X}"]
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return next((line[9] for line in lines if [line[1][-5:], line[2][-5:]] == ends), "0")


def _descriptors(pid: int) -> set[str]:
    """What a process's descriptors are."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return found


def _waited_ms(workers: tuple[int, ...]) -> float:
    """How long this process and the workers have been ready to run without a processor (proc's schedstat)."""
    paths = [f"/proc/{pid}/schedstat" for pid in ("self", *workers)]
    return sum(int(Path(path).read_text().split()[1]) for path in paths) / 1e6


@contextmanager
def _collections() -> Iterator[list[float]]:
    """The milliseconds that Python's collector has run, counted up in the one entry."""
    total, begun = [0.0], [0.0]

    def count(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            begun[0] = time.perf_counter()
        else:
            total[0] += (time.perf_counter() - begun[0]) * 1000

    gc.callbacks.append(count)
    try:
        yield total
    finally:
        gc.callbacks.remove(count)


async def _ask(started: Gateway, failed: list[int]) -> None:
    """Ask for the page that the gateway itself answers a route of nobody with."""
    while True:
        reply = await started.get("h-none.test", Cookie=cookie(0))
        failed[0] += reply.status != 404
        await asyncio.sleep(0.01)
