"""The module proxy's figures: what a hit, a miss and an absence cost, many clients at once, and a real module graph.

Only the graph goes to the network: to what `go env GOPROXY` says. Everything else has a local upstream. CPU is the
proxy's own user and system time, which noise hardly moves; times are the least of several alternating runs.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE.parent / "tests"))

from support.goupstream import Fault, Upstream, go  # noqa: E402 - a test's upstream, below the path added above

# A linter that is made of other people's linters: 194 modules, none of them large.
_GRAPH = "module example.com/graph\n\ngo 1.22\n\nrequire github.com/golangci/golangci-lint v1.55.2\n"
_CLIENTS = 200
_LARGE = 400 * 2**20
_RUNS = 3
_TICK = os.sysconf("SC_CLK_TCK")


async def run() -> list[dict[str, Any]]:
    """All figures."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-bench-"))
    try:
        return [*await _local(folder), *await asyncio.to_thread(_graph, folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, value: float, unit: str, limit: float | None, note: str = "") -> dict[str, Any]:
    return {"name": f"goproxy: {name}", "value": value, "unit": unit, "limit": limit, "note": note}


class _Proxy:
    """`mooring goproxy serve` as a process of its own."""

    def __init__(self, store: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [str(Path(sys.executable).parent / "mooring"), "goproxy", "--store", str(store), *options]
        self.log = store.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, "serve", "--port", str(self.port)], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while b"ready" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            self.process.poll()
            with socket.socket() as wait:
                wait.settimeout(0.05)
                wait.connect_ex(("127.0.0.1", 9))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def memory(self, what: str) -> float:
        """MB of VmRSS or VmHWM."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()


@contextmanager
def _proxy(store: Path, *options: str) -> Iterator[_Proxy]:
    proxy = _Proxy(store, *options)
    try:
        yield proxy
    finally:
        proxy.stop()


async def _local(folder: Path) -> list[dict[str, Any]]:
    with Upstream(folder / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        upstream.publish("example.com/two-hundred", "v1.0.0", {"data": os.urandom(2**20)})
        upstream.publish("example.com/two-hundred", "v1.0.1", {"data": os.urandom(2**20)})
        with _proxy(folder / "local", "--upstream", upstream.url, "--sumdb", upstream.sumdb) as proxy:
            rows = [
                await _requests(proxy, "example.com/x/@v/v1.0.0.info", "warm .info, stand-alone", 1e6 / 3000),
                await _requests(proxy, "example.com/none/@v/list", "absent path again", 1e6 / 2000),
            ]
            rows += await _at_once(proxy, upstream)
        rows.append(await _large(folder, upstream))
    return rows


async def _requests(proxy: _Proxy, name: str, label: str, limit: float) -> dict[str, Any]:
    count, clients = 1500, 16
    await _get(proxy, name)
    before = proxy.cpu()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_many(proxy, name, count))
    seconds, cpu = time.perf_counter() - began, proxy.cpu() - before
    total = count * clients
    return _row(label, cpu / total * 1e6, "µs CPU", limit, f"{total / seconds:,.0f}/s beside its client")


async def _many(proxy: _Proxy, name: str, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    for _ in range(count):
        writer.write(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


async def _get(proxy: _Proxy, name: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(f"GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    received = 0
    while chunk := await reader.read(2**18):
        received += len(chunk)
    writer.close()
    await writer.wait_closed()
    return received


async def _at_once(proxy: _Proxy, upstream: Upstream) -> list[dict[str, Any]]:
    """A module of 1 MB whose upstream is a long way off: 100 ms to the first byte, then 3 MB a second."""
    took = []
    name = ""
    for version, clients in (("v1.0.0", 1), ("v1.0.1", _CLIENTS)):
        name = f"example.com/two-hundred/@v/{version}.zip"
        upstream.faults[name] = Fault(delay_s=0.1, pace=lambda _at: time.sleep(0.02))  # noqa: TID251 - in its own thread
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(_get(proxy, name))
        took.append(time.perf_counter() - began)
    note = f"{took[1]:.2f} s, one alone {took[0]:.2f} s"
    return [
        _row(f"{_CLIENTS} clients, one cold module, last done", took[1] / took[0], "times one client", 1.3, note),
        _row(f"{_CLIENTS} clients, one cold module, fetches", upstream.asked[name], "upstream", 1),
    ]


async def _large(folder: Path, upstream: Upstream) -> dict[str, Any]:
    """Cold: received, verified and sent to 50 at the same time."""
    data = os.urandom(2**20) * (_LARGE // 2**20)
    archive = await asyncio.to_thread(upstream.publish, "example.com/large", "v1.0.0", {"data": data}, stored=True)
    del data
    with _proxy(folder / "large", "--upstream", upstream.url, "--sumdb", upstream.sumdb) as proxy:
        await _get(proxy, "example.com/x/@v/v1.0.0.zip")
        idle = proxy.memory("VmRSS")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_get(proxy, "example.com/large/@v/v1.0.0.zip")) for _ in range(50)]
        whole = sum(task.result() >= len(archive) for task in tasks)
        grown = proxy.memory("VmHWM") - idle
    return _row("50 clients pull a cold 400 MB zip, memory", grown, "MB above idle", 60, f"{whole} of 50 got all of it")


def _graph(folder: Path) -> list[dict[str, Any]]:
    direct, cold, warm, floor = [], [], [], []
    for number in range(_RUNS):
        direct.append(_download(folder, {}))
        with _proxy(folder / f"graph{number}") as proxy:
            cold.append(_download(folder, {"GOPROXY": proxy.url}))
    store = folder / f"graph{_RUNS - 1}"
    with _proxy(store, "--upstream", "off") as proxy:
        for _ in range(_RUNS):
            warm.append(_download(folder, {"GOPROXY": proxy.url, "GOSUMDB": "off"}))
            floor.append(_download(folder, {"GOPROXY": f"file://{store}/cache/download", "GOSUMDB": "off"}))
        closed = _download(folder, {"GOPROXY": proxy.url})
    count = len(list((store / "cache/download").rglob("*.zip")))
    return [
        _row("module graph, cold", min(cold) / min(direct), "times upstream", 1.15, _note(count, cold, direct)),
        _row("module graph, warm", min(warm) / min(floor), "times file://", 1.05, _note(count, warm, floor)),
        _row("module graph, closed network", closed, "s", None, "complete, checksum database included"),
    ]


def _note(count: int, ours: list[float], theirs: list[float]) -> str:
    return f"{count} modules, {min(ours):.1f} s against {min(theirs):.1f} s"


def _download(folder: Path, settings: dict[str, str]) -> float:
    """Seconds of `go mod download all` with an empty cache."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "go.mod").write_text(_GRAPH)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}  # noqa: TID251 - of this machine
    own = {"GOMODCACHE": str(work / "modcache"), "GOPATH": str(work / "go"), "GOFLAGS": "-modcacherw"}
    began = time.perf_counter()
    subprocess.run(
        [go(), "mod", "download", "all"], cwd=work, env=kept | own | settings, check=True, capture_output=True
    )
    return time.perf_counter() - began
