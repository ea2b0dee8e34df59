"""A real module graph by `go mod download`: cold through each module proxy, warm, and without any upstream.

It goes to the network: to what `go env GOPROXY` says. Ours and the upstream take turns, now one first and now the
other; a ratio is the median of the rounds' own ratios, since the machine and the network are slower in one minute than
in the next. Warm, plain nginx serves the same files beside us: its row is what HTTP costs the go command, whoever
serves; so does the gateway of `mooring up`, which knows the client by a token. Where client and server share two
processors, what either of them spends is the other's time: the go command's own is printed beside the rounds. Of each
peer there is one run, which does all that it does cold once more, compared with the median.
"""

import asyncio
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from bench.gateway_load import cpu_seconds, workers
from bench.goproxy_servers import Origin, Start, nginx, ours, peers, started
from mooring.gateway.config import Modules
from mooring.goproxy import access, clearance
from mooring.goproxy.config import Config
from mooring.goproxy.policy import Filter
from mooring.server.door import answering
from mooring.server.goproxy import build
from mooring.server.logs import errors_only
from mooring.settings import Home
from support.goupstream import go
from support.nginx import gateway

# A linter that is made of other people's linters: 194 modules, none of them large.
_GRAPH = "module example.com/graph\n\ngo 1.22\n\nrequire github.com/golangci/golangci-lint v1.55.2\n"
_RUNS = 3
_WARM_RUNS = 7
_PATIENCE_S = 150.0
Row = dict[str, Any]


async def run() -> list[Row]:
    """All figures."""
    errors_only()
    folder = Path(tempfile.mkdtemp(prefix="mooring-bench-"))
    try:
        rows, direct = await _cold(folder)
        store = folder / str(_RUNS - 1) / "store"
        async with _through_gateway(folder / "up", store) as place:
            more, floor = await _kept(folder, place)
        return rows + more + await _peers(folder, (direct, floor))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, value: float, unit: str, limit: float | None, note: str = "") -> Row:
    return {"name": f"goproxy: module graph, {name}", "value": value, "unit": unit, "limit": limit, "note": note}


async def _cold(folder: Path) -> tuple[list[Row], float]:
    """Rows, and how long it took from the upstream; the last run's store stays."""
    direct, cold, busy = [], [], []
    for number in range(_RUNS):
        if number % 2:
            direct.append(await _download(folder, {}))
        with started(ours(), folder / str(number)) as server:
            cold.append(await _download(folder, {"GOPROXY": server.url}))
            busy.append(server.cpu())
        if number % 2 == 0:
            direct.append(await _download(folder, {}))
    rows = [
        _row("cold", _ratio(cold, direct), "times upstream", 1.15, _note(cold, direct)),
        _row("cold, processor time of the proxy", statistics.median(busy), "s", None, "its start included"),
    ]
    return rows, statistics.median(direct)


@dataclass(frozen=True)
class _Place:
    """Where the files are, and what whoever serves them has spent, in seconds."""

    name: str
    url: str
    cpu: Callable[[], float] = lambda: 0.0


@dataclass
class _Rounds:
    """The downloads from one place: how long they took, what the go command and what the server spent on them."""

    seconds: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


async def _kept(folder: Path, through_gateway: _Place) -> tuple[list[Row], float]:
    """Rows of what needs no upstream, and how long it took from `file://`."""
    kept = folder / str(_RUNS - 1)
    files = kept / "store/cache/download"
    with started(ours("--upstream", "off"), kept) as server, started(nginx(files), folder / "nginx") as plain:
        places = [
            _Place("", server.url, server.cpu),
            _Place(": plain nginx", plain.url, plain.cpu),
            _Place(": the gateway of mooring up", through_gateway.url, through_gateway.cpu),
            _Place(": file://", f"file://{files}"),
        ]
        rounds = await _warm(folder, places)
        closed = await _download(folder, {"GOPROXY": server.url})
    rows = _warm_rows(places[:-1], rounds[:-1], rounds[-1], f"{len(list(files.rglob('*.zip')))} modules")
    rows.append(_row("closed network", closed, "s", None, "complete, checksum database included"))
    return rows, statistics.median(rounds[-1].seconds)


def _warm_rows(places: list[_Place], rounds: list[_Rounds], floor: _Rounds, what: str) -> list[Row]:
    rows = []
    for place, each in zip(places, rounds, strict=True):
        limit = None if place.name else 1.05
        note = f"{what}, {_note(each.seconds, floor.seconds)}"
        rows.append(_row(f"warm{place.name}", _ratio(each.seconds, floor.seconds), "times file://", limit, note))
    for place, each in zip(places, rounds, strict=True):
        name = f"warm, processor time of the go command{place.name}"
        note = f"medians {statistics.median(each.client):.2f} and {statistics.median(floor.client):.2f} s"
        rows.append(_row(name, _ratio(each.client, floor.client), "times file://", None, note))
    for place, each in zip(places, rounds, strict=True):
        name = f"warm, processor time of the server{place.name}"
        rows.append(_row(name, statistics.median(each.server), "s", None))
    return rows


async def _warm(folder: Path, places: list[_Place]) -> list[_Rounds]:
    """From each place, taking turns: each is the first one as often as the others."""
    rounds = [_Rounds() for _ in places]
    for number in range(_WARM_RUNS):
        for turn in range(len(places)):
            which = (number + turn) % len(places)
            place, each = places[which], rounds[which]
            before, children = place.cpu(), _children()
            each.seconds.append(await _download(folder, {"GOPROXY": place.url, "GOSUMDB": "off"}))
            each.client.append(_children() - children)
            each.server.append(place.cpu() - before)
    return rounds


def _children() -> float:
    """Seconds that processes have spent which this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def _through_gateway(folder: Path, store: Path) -> AsyncIterator[_Place]:
    """The store behind one worker of the gateway, for somebody with a token.

    What the gateway leaves to the module proxy's role (a few paths of this graph) this process answers.
    """
    home = Home(folder)
    for each in (home.run, home.modules):
        each.mkdir(parents=True)
    modules = replace(Modules.of(home), store=store / "cache/download")
    token = access.make(home.modules_tokens, "somebody", ())
    config = Config(store, upstream="off", sumdb="off", tokens=home.modules_tokens)
    modules.policy.write_bytes(clearance.document(config, *Filter(None).now()))
    role = socket.socket(socket.AF_UNIX)
    role.bind(str(modules.role))
    async with (
        build(config) as proxy,
        answering(proxy.app, role),
        gateway(home.root, workers=1, modules=modules, console="127.0.0.1") as ours,
    ):
        (pid,) = workers(ours.nginx.pid)
        yield _Place("", f"http://127.0.0.1:{ours.port}/goproxy/t-{token}", lambda: cpu_seconds(pid))


async def _peers(folder: Path, beside: tuple[float, float]) -> list[Row]:
    rows = []
    for name, peer in peers(_origin()).items():
        rows += await _peer(peer, folder, folder / name, beside)
    return rows


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def _note(ours: list[float], theirs: list[float]) -> str:
    rounds = ", ".join(f"{mine:.2f}/{other:.2f}" for mine, other in zip(ours, theirs, strict=True))
    return f"rounds in s: {rounds}"


def _origin() -> Origin:
    """What the go command of this machine is set to."""
    found = subprocess.run([go(), "env", "GOPROXY", "GOSUMDB"], capture_output=True, text=True, check=True).stdout
    proxy, sumdb = found.split()
    return Origin(proxy, sumdb, f"{proxy.partition(',')[0]}/sumdb/{sumdb.partition('+')[0]}")


async def _peer(peer: Start, folder: Path, store: Path, beside: tuple[float, float]) -> list[Row]:
    """Its client asks no checksum database: not every peer can lead it to one here."""
    direct, floor = beside
    with started(peer, store) as server:
        settings = {"GOPROXY": server.url, "GOSUMDB": "off"}
        try:
            cold = await _download(folder, settings)
        except (subprocess.SubprocessError, TimeoutError) as error:
            why = str(getattr(error, "stderr", None) or "it took too long")[-80:]
            return [_row(f"cold: {server.name}", _PATIENCE_S / direct, "times upstream", None, f"failed: {why}")]
        warm = await _download(folder, settings)
        return [
            _row(f"cold: {server.name}", cold / direct, "times upstream", None, f"{cold:.1f} s"),
            _row(f"warm: {server.name}", warm / floor, "times file://", None, f"{warm:.1f} s"),
        ]


async def _download(folder: Path, settings: dict[str, str]) -> float:
    """Seconds of `go mod download all` with an empty cache.

    In a folder of its own that goes at the end of all: for minutes after files were removed ext4 makes new ones slowly.
    """
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    (work / "go.mod").write_text(_GRAPH)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}  # noqa: TID251 - of this machine
    own = {"GOMODCACHE": str(work / "modcache"), "GOPATH": str(work / "go"), "GOFLAGS": "-modcacherw"}
    command = [go(), "mod", "download", "all"]
    began = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        *command, cwd=work, env=kept | own | settings, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, told = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, stderr=told.decode(errors="replace"))
    return time.perf_counter() - began
