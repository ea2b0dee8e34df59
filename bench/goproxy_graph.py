"""A real module graph by `go mod download`: cold through each module proxy, warm, and without any upstream.

It goes to the network: to what `go env GOPROXY` says. Ours and the upstream take turns, now one first and now the
other; a ratio is the median of the rounds' own ratios, since the machine and the network are slower in one minute than
in the next. One download before them is not counted. Each peer is filled once, compared with the median. Warm, all of
them take turns, beside plain nginx with the same files: its row is what HTTP costs the go command, whoever serves; and
beside the gateway of `mooring up`, which knows the client by a token. Where client and server share two processors,
what either of them spends is the other's time: it is printed beside the rounds.

The go command's own cache is in memory: on a disk, what one download wrote is still being written while the next one
is timed, and the same one took 1.3 s in one round and 1.9 in another.
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
from contextlib import ExitStack, asynccontextmanager
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
_RUNS = 5
_WARM_RUNS = 7
_PATIENCE_S = 150.0
_MEMORY = Path("/dev/shm")  # noqa: S108 - each download makes a folder of its own there
Row = dict[str, Any]


async def run() -> list[Row]:
    """All figures."""
    errors_only()
    folder = Path(tempfile.mkdtemp(prefix="mooring-bench-"))
    try:
        rows, direct = await _cold(folder)
        store = folder / str(_RUNS - 1) / "store"
        filled = {
            name: peer for name, peer in peers(_origin()).items() if await _fill(peer, folder / name, direct, rows)
        }
        async with _through_gateway(folder / "up", store) as place:
            return rows + await _kept(folder, place, filled)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, value: float, unit: str, limit: float | None, note: str = "") -> Row:
    return {"name": f"goproxy: module graph, {name}", "value": value, "unit": unit, "limit": limit, "note": note}


async def _cold(folder: Path) -> tuple[list[Row], float]:
    """Rows, and how long it took from the upstream; the last run's store stays."""
    direct, cold, busy = [], [], []
    # An upstream is a cache itself, and answers slower for what nobody asked for lately: the first of all would pay.
    await _download({})
    for number in range(_RUNS):
        if number % 2:
            direct.append(await _download({}))
        with started(ours(), folder / str(number)) as server:
            cold.append(await _download({"GOPROXY": server.url}))
            busy.append(server.cpu())
        if number % 2 == 0:
            direct.append(await _download({}))
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


async def _kept(folder: Path, through_gateway: _Place, filled: dict[str, Start]) -> list[Row]:
    """Rows of what needs no upstream."""
    kept = folder / str(_RUNS - 1)
    files = kept / "store/cache/download"
    with ExitStack() as running:
        server = running.enter_context(started(ours("--upstream", "off"), kept))
        plain = running.enter_context(started(nginx(files), folder / "nginx"))
        places = [
            _Place("", server.url, server.cpu),
            _Place(": plain nginx", plain.url, plain.cpu),
            replace(through_gateway, name=": the gateway of mooring up"),
        ]
        for name, peer in filled.items():
            each = running.enter_context(started(peer, folder / name))
            places.append(_Place(f": {each.name}", each.url, each.cpu))
        rounds = await _warm([*places, _Place(": file://", f"file://{files}")])
        closed = await _download({"GOPROXY": server.url})
    rows = _warm_rows(places, rounds[:-1], rounds[-1], f"{len(list(files.rglob('*.zip')))} modules")
    return [*rows, _row("closed network", closed, "s", None, "complete, checksum database included")]


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


async def _warm(places: list[_Place]) -> list[_Rounds]:
    """From each place, taking turns: each is the first one as often as the others."""
    rounds = [_Rounds() for _ in places]
    for number in range(_WARM_RUNS):
        for turn in range(len(places)):
            which = (number + turn) % len(places)
            place, each = places[which], rounds[which]
            before, children = place.cpu(), _children()
            each.seconds.append(await _download({"GOPROXY": place.url, "GOSUMDB": "off"}))
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


async def _fill(peer: Start, store: Path, direct: float, rows: list[Row]) -> bool:
    """Whether the peer served all of it cold; adds its row.

    Its client asks no checksum database: not every peer can lead it to one here.
    """
    with started(peer, store) as server:
        try:
            cold = await _download({"GOPROXY": server.url, "GOSUMDB": "off"})
        except (subprocess.SubprocessError, TimeoutError) as error:
            why = str(getattr(error, "stderr", None) or "it took too long")[-80:]
            rows.append(_row(f"cold: {server.name}", _PATIENCE_S / direct, "times upstream", None, f"failed: {why}"))
            return False
    rows.append(_row(f"cold: {server.name}", cold / direct, "times upstream", None, f"{cold:.1f} s"))
    return True


async def _download(settings: dict[str, str]) -> float:
    """Seconds of `go mod download all` with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="mooring-bench-", dir=_MEMORY) as folder:
        work = Path(folder)
        (work / "go.mod").write_text(_GRAPH)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}  # noqa: TID251 - of this machine
        own = {"GOMODCACHE": str(work / "modcache"), "GOPATH": str(work / "go"), "GOFLAGS": "-modcacherw"}
        began = time.perf_counter()
        await _run([go(), "mod", "download", "all"], work, kept | own | settings)
        return time.perf_counter() - began


async def _run(command: list[Path | str], folder: Path, environment: dict[str, str]) -> None:
    child = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
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
