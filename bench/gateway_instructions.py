"""Instructions that a worker takes for a proxied request, outside the kernel: ours with 10,000 hosts, and plain nginx.

Counted by valgrind's callgrind, so that a step of a hundredth shows that no clock tells from a noisy machine's moods.
What the kernel does is not in it, nor what memory costs that no cache holds. valgrind's processor has no instructions
for SHA-256: the signature of a cookie takes some 4,000 more than it does elsewhere. What happens once a second counts
with the requests, so a busy machine says a little more.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import CONNECTIONS, KEY, load, many_routes, plain_nginx, running, workers
from mooring.errors import Unavailable
from mooring.gateway.config import NginxSettings, render
from mooring.gateway.nginx import NginxSink
from mooring.model.grants import Grants
from mooring.routes.ports import Delta, Revision, RouteKey
from support.nginx import listening, settings

# Until the compiler has made machine code of what a request runs through.
_WARM_S, _COUNTED_S = 10, 10
_START_S = 60.0


async def run() -> list[dict[str, Any]]:
    """Rows for the table; there is no bound: what is promised is time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = 'return 200 "a body of thirty-three bytes here\\n";'
        async with plain_nginx(folder / "backend", body) as (_, backend):
            valgrind = _valgrind(folder)
            passed = plain_nginx(folder / "plain", "proxy_pass http://backend;", upstream=backend, under=valgrind)
            async with passed as (pid, port):
                plain = await _counted(pid, port, folder)
            async with _ours(folder / "ours", backend, valgrind) as (pid, port):
                ours = await _counted(pid, port, folder)
    note = "outside the kernel, by callgrind"
    return [
        {"name": "instructions a request", "value": ours / 1000, "unit": "thousand", "limit": None, "note": note},
        {"name": "  plain nginx", "value": plain / 1000, "unit": "thousand", "limit": None, "note": note},
        {"name": "  ours / plain nginx", "value": ours / plain, "unit": "times", "limit": None},
    ]


def _valgrind(folder: Path) -> tuple[str, ...]:
    kept = f"--callgrind-out-file={folder}/callgrind.%p"
    return ("valgrind", "-q", "--tool=callgrind", "--trace-children=yes", "--instr-atstart=no", kept)


async def _counted(pid: int, port: int, folder: Path) -> float:
    """Instructions for each request."""
    await load(port, folder, seconds=_WARM_S, active=CONNECTIONS)
    await _control("-i", "on", str(pid))
    requests = await load(port, folder, seconds=_COUNTED_S, active=CONNECTIONS)
    await _control("-i", "off", str(pid))
    await _control("-d", str(pid))
    texts = [path.read_text() for path in folder.glob(f"callgrind.{pid}.*")]
    return sum(int(found) for text in texts for found in re.findall(r"^totals: (\d+)", text, re.MULTILINE)) / requests


async def _control(*arguments: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *("callgrind_control", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await child.communicate())[0].decode()
    # It ends with 0 also where it found no such process.
    assert child.returncode == 0 and "OK." in output, output  # noqa: PT018 - one thing is asked


@asynccontextmanager
async def _ours(folder: Path, backend: int, under: tuple[str, ...]) -> AsyncIterator[tuple[int, int]]:
    """(worker's pid, port) of our nginx without its agent, which knows nginx by its name: here it is valgrind's."""
    with listening() as free:
        port = free.getsockname()[1]
    chosen: NginxSettings = settings(folder, port, workers=1)
    for made in (chosen.home.run, chosen.folder / "tmp"):
        made.mkdir(parents=True)
    (chosen.folder / "nginx.conf").write_text(render(chosen))
    sink = NginxSink(chosen.home.gateway_socket)
    async with running(
        *under, str(chosen.binary), "-p", f"{chosen.folder}/", "-c", "nginx.conf", "-e", "error.log"
    ) as pid:
        try:
            await _answered(sink.applied)
            entries = tuple((RouteKey("bench", each.name), each) for each in many_routes(f"127.0.0.1:{backend}"))
            await sink.apply(Revision("bench", 1), Delta(entries, complete=True))
            await sink.grant(Grants(keys=(KEY,)))
            yield workers(pid)[0], port
        finally:
            await sink.close()


async def _answered(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            try:
                await ask()
            except Unavailable:
                await asyncio.sleep(0.2)
            else:
                return
