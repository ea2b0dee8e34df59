"""What a module that is kept costs behind our gateway, beside plain nginx with the same file.

One worker each, the same client, rounds in turn. The gateway checks one of 1,000 tokens, private patterns and rules,
and counts; the module proxy's role does not run at all. Plain nginx has the settings of Debian's `nginx.conf`
(`sendfile`, `tcp_nopush`). The figure is the worker's own user and system time in all rounds divided by the requests
that the client counted in all of them: single rounds of the zip differ by a factor of two, with the same system calls.
"""

import asyncio
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import cpu_seconds, plain_nginx, workers
from mooring.gateway.config import Modules
from mooring.goproxy import clearance
from mooring.goproxy.config import Config
from mooring.goproxy.policy import Filter
from mooring.settings import Home
from support.nginx import CONSOLE, gateway

_MODULE = "example.com/team/library"
_TOKENS = 1000
_ROUNDS = 12
_SECONDS = 1
_LIMIT = 1.5
_ZIP = 6 * 2**20
# Where the scheduler puts worker and client decides by a factor of two what a zip costs: each has a processor.
_CPUS = sorted(os.sched_getaffinity(0))
# Peers on such a machine, measured elsewhere: microseconds.
_PEERS = {"info": "goproxy 45 µs, Athens 78 µs", "zip": "goproxy 490 µs, Athens 2,360 µs"}

_WRK = """
local file = io.open("{tokens}")
local tokens = {{}}
for line in file:lines() do tokens[#tokens + 1] = line end
local headers = {{ ["Host"] = "{host}", ["Accept-Encoding"] = "gzip" }}
function request()
    local path = "{path}"
    if "{plain}" == "" then path = "/goproxy/t-" .. tokens[math.random(#tokens)] .. path end
    return wrk.format("GET", path, headers)
end
"""


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory(prefix="mgw-", dir="/tmp") as name:
        folder = Path(name)
        async with _both(folder) as (ours, plain):
            rows = []
            for kind in ("info", "mod", "zip"):
                rows += await _rows(kind, ours, plain, folder)
    return rows


async def _rows(kind: str, ours: tuple[int, int], plain: tuple[int, int], folder: Path) -> list[dict[str, Any]]:
    spent, counted = {"ours": 0.0, "plain": 0.0}, {"ours": 0, "plain": 0}
    for _ in range(_ROUNDS):
        for name, (pid, port) in (("plain", plain), ("ours", ours)):
            before = cpu_seconds(pid)
            counted[name] += await _load(port, folder, kind, _SECONDS, plain=name == "plain")
            spent[name] += cpu_seconds(pid) - before
    cost = {name: spent[name] / counted[name] * 1e6 for name in spent}
    note = f"plain nginx {cost['plain']:.1f} µs"
    peers = f"elsewhere {_PEERS[kind]}" if kind in _PEERS else ""
    ratio = cost["ours"] / cost["plain"]
    return [
        {"name": f"module hit, .{kind}, CPU", "value": cost["ours"], "unit": "µs", "limit": None, "note": note},
        {"name": "  ours / plain nginx", "value": ratio, "unit": "times", "limit": _LIMIT, "note": peers},
    ]


@asynccontextmanager
async def _both(folder: Path) -> AsyncIterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(worker's pid, port) of our gateway and of a plain nginx with the same store."""
    home = Home(folder / "home")
    modules = Modules.of(home)
    _fill(home, modules, folder)
    options = f'root "{modules.store}"; sendfile on; tcp_nopush on;'
    async with (
        plain_nginx(folder / "plain", options) as plain,
        gateway(home.root, workers=1, modules=modules) as ours,
    ):
        (pid,) = workers(ours.nginx.pid)
        for each in (pid, plain[0]):
            os.sched_setaffinity(each, {_CPUS[0]})
        yield (pid, ours.port), plain


def _fill(home: Home, modules: Modules, folder: Path) -> None:
    """A store with one version, the tokens of many, and what the role would have written down."""
    versions = modules.store / _MODULE / "@v"
    versions.mkdir(parents=True)
    home.run.mkdir()
    (versions / "v1.0.0.info").write_text('{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}')
    (versions / "v1.0.0.mod").write_text(f"module {_MODULE}\n\ngo 1.22\n\nrequire example.com/other v1.2.3\n")
    (versions / "v1.0.0.zip").write_bytes(os.urandom(_ZIP))
    tokens = [hashlib.sha256(str(number).encode()).hexdigest()[:43] for number in range(_TOKENS)]
    (folder / "tokens").write_text("".join(f"{token}\n" for token in tokens))
    lines = (f"workspace:{i} {hashlib.sha256(t.encode()).hexdigest()} example.com/team\n" for i, t in enumerate(tokens))
    home.modules_tokens.write_text("".join(lines))
    rules = home.root / "rules"
    rules.write_text("- example.com/old\n")
    private = ("example.com/team", "*.corp.example")
    config = Config(home.modules, tokens=home.modules_tokens, private=private, filter=rules)
    modules.policy.write_bytes(clearance.document(config, *Filter(rules).now()))


async def _load(port: int, folder: Path, kind: str, seconds: int, *, plain: bool) -> int:
    """Requests that wrk got answered with 200 in that time."""
    script = folder / f"load-{port}-{kind}.lua"
    values = {
        "tokens": folder / "tokens",
        "host": f"{CONSOLE}:{port}",
        "path": f"/{_MODULE}/@v/v1.0.0.{kind}",
        "plain": "plain" if plain else "",
    }
    script.write_text(_WRK.format(**values))
    connections = 4 if kind == "zip" else 32
    child = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        os.sched_setaffinity(child.pid, {_CPUS[-1]})
        output = (await child.communicate())[0].decode()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert "Non-2xx" not in output, output
    match = re.search(r"(\d+) requests in", output)
    assert match, output
    return int(match[1])
