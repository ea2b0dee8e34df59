"""A real module graph by `go mod download`: cold through each module proxy, warm, and without any upstream.

It goes to the network: to what `go env GOPROXY` says. Ours and the upstream take turns, now one first and now the
other; a ratio is the median of the rounds' own ratios, since the machine and the network are slower in one minute than
in the next. Warm, plain nginx serves the same files beside us: its row is what HTTP costs the go command, whoever
serves. Of each peer there is one run, which does all that it does cold once more, compared with the median.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from bench.goproxy_servers import Origin, Server, Start, nginx, ours, peers, started
from support.goupstream import go

# A linter that is made of other people's linters: 194 modules, none of them large.
_GRAPH = "module example.com/graph\n\ngo 1.22\n\nrequire github.com/golangci/golangci-lint v1.55.2\n"
_RUNS = 3
_WARM_RUNS = 7
_PATIENCE_S = 150.0
Row = dict[str, Any]


async def run() -> list[Row]:
    """All figures."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-bench-"))
    try:
        return await asyncio.to_thread(_graph, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, value: float, unit: str, limit: float | None, note: str = "") -> Row:
    return {"name": f"goproxy: module graph, {name}", "value": value, "unit": unit, "limit": limit, "note": note}


def _graph(folder: Path) -> list[Row]:
    direct, cold, busy = [], [], []
    for number in range(_RUNS):
        if number % 2:
            direct.append(_download(folder, {}))
        with started(ours(), folder / str(number)) as server:
            cold.append(_download(folder, {"GOPROXY": server.url}))
            busy.append(server.cpu())
        if number % 2 == 0:
            direct.append(_download(folder, {}))
    kept = folder / str(_RUNS - 1)
    files = kept / "store/cache/download"
    with started(ours("--upstream", "off"), kept) as server, started(nginx(files), folder / "nginx") as plain:
        warm = _warm(folder, server, plain, f"file://{files}")
        closed = _download(folder, {"GOPROXY": server.url})
    count, floor = len(list(files.rglob("*.zip"))), warm[2].seconds
    rows = [
        _row("cold", _ratio(cold, direct), "times upstream", 1.15, _note(count, cold, direct)),
        _row("cold, processor time of the proxy", statistics.median(busy), "s", None, "its start included"),
        _row("warm", _ratio(warm[0].seconds, floor), "times file://", 1.05, _note(count, warm[0].seconds, floor)),
        _row(
            "warm: plain nginx",
            _ratio(warm[1].seconds, floor),
            "times file://",
            None,
            _note(count, warm[1].seconds, floor),
        ),
        _row("warm, processor time of the proxy", statistics.median(warm[0].busy), "s", None, f"{3 * count} files"),
        _row("warm, processor time: plain nginx", statistics.median(warm[1].busy), "s", None),
        _row("closed network", closed, "s", None, "complete, checksum database included"),
    ]
    for name, peer in peers(_origin()).items():
        rows += _peer(peer, folder, folder / name, (statistics.median(direct), statistics.median(floor)))
    return rows


@dataclass
class _Rounds:
    """The downloads from one place, and what they cost whoever serves it."""

    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


def _warm(folder: Path, server: Server, plain: Server, files: str) -> list[_Rounds]:
    """From ours, from nginx and from the files, taking turns: each is the first one as often as the others."""
    rounds = [_Rounds(), _Rounds(), _Rounds()]
    places: list[tuple[str, Callable[[], float]]]
    places = [(server.url, server.cpu), (plain.url, plain.cpu), (files, lambda: 0.0)]
    for number in range(_WARM_RUNS):
        for turn in range(len(places)):
            which = (number + turn) % len(places)
            url, cpu = places[which]
            before = cpu()
            rounds[which].seconds.append(_download(folder, {"GOPROXY": url, "GOSUMDB": "off"}))
            rounds[which].busy.append(cpu() - before)
    return rounds


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def _note(count: int, ours: list[float], theirs: list[float]) -> str:
    rounds = ", ".join(f"{mine:.2f}/{other:.2f}" for mine, other in zip(ours, theirs, strict=True))
    return f"{count} modules, rounds in s: {rounds}"


def _origin() -> Origin:
    """What the go command of this machine is set to."""
    found = subprocess.run([go(), "env", "GOPROXY", "GOSUMDB"], capture_output=True, text=True, check=True).stdout
    proxy, sumdb = found.split()
    return Origin(proxy, sumdb, f"{proxy.partition(',')[0]}/sumdb/{sumdb.partition('+')[0]}")


def _peer(peer: Start, folder: Path, store: Path, beside: tuple[float, float]) -> list[Row]:
    """Its client asks no checksum database: not every peer can lead it to one here."""
    direct, floor = beside
    with started(peer, store) as server:
        settings = {"GOPROXY": server.url, "GOSUMDB": "off"}
        try:
            cold = _download(folder, settings)
        except subprocess.SubprocessError as error:
            why = str(getattr(error, "stderr", None) or "it took too long")[-80:]
            return [_row(f"cold: {server.name}", _PATIENCE_S / direct, "times upstream", None, f"failed: {why}")]
        warm = _download(folder, settings)
        return [
            _row(f"cold: {server.name}", cold / direct, "times upstream", None, f"{cold:.1f} s"),
            _row(f"warm: {server.name}", warm / floor, "times file://", None, f"{warm:.1f} s"),
        ]


def _download(folder: Path, settings: dict[str, str]) -> float:
    """Seconds of `go mod download all` with an empty cache.

    In a folder of its own that goes at the end of all: for minutes after files were removed ext4 makes new ones slowly.
    """
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    (work / "go.mod").write_text(_GRAPH)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}  # noqa: TID251 - of this machine
    own = {"GOMODCACHE": str(work / "modcache"), "GOPATH": str(work / "go"), "GOFLAGS": "-modcacherw"}
    command = [go(), "mod", "download", "all"]
    began = time.perf_counter()
    subprocess.run(command, cwd=work, env=kept | own | settings, check=True, capture_output=True, timeout=_PATIENCE_S)
    return time.perf_counter() - began
