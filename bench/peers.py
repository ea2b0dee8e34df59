"""What other proxies cost a request, in the same run as plain nginx: HAProxy, Caddy, configurable-http-proxy.

Each knows the same 10,000 hosts (configurable-http-proxy has no host table here: it routes everything to one target),
checks no access and counts nothing; one process, one thread where that can be said.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from bench.gateway_load import HOSTS, cpu_seconds, load, plain_nginx
from mooring.settings import cache
from support.mooring import free_port

_SECONDS = 4
_HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port}
    use_backend %[req.hdr(host),field(1,:),map({map})]
backend kept
    http-reuse always
    server one 127.0.0.1:{backend}
"""


async def run() -> list[dict[str, Any]]:
    """Rows for the table; none has a bound."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        async with (
            plain_nginx(folder / "backend", 'return 200 "a body of thirty-three bytes here\\n";') as (_, backend),
            plain_nginx(folder / "plain", "proxy_pass http://backend;", upstream=backend) as (pid, port),
        ):
            floor = await _cost(pid, port, folder)
            rows = [_row("plain nginx", floor, floor)]
            for name, command, listen in _peers(folder, backend):
                async with _started(command, listen) as peer:
                    rows.append(_row(name, await _cost(peer, listen, folder), floor))
    return rows


def _row(name: str, cost: float, floor: float) -> dict[str, Any]:
    return {"name": f"peer: {name}", "value": cost, "unit": "µs", "limit": None, "note": f"{cost / floor:.2f} times"}


def _peers(folder: Path, backend: int) -> list[tuple[str, Sequence[str], int]]:
    haproxy, caddy, node = free_port(), free_port(), free_port()
    hosts = [f"h{number}.test" for number in range(HOSTS)]
    (folder / "hosts.map").write_text("".join(f"{host} kept\n" for host in hosts))
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(port=haproxy, backend=backend, map=folder / "hosts.map"))
    proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{backend}"}]}
    server = {
        "listen": [f"127.0.0.1:{caddy}"],
        "automatic_https": {"disable": True},
        "routes": [{"match": [{"host": hosts}], "handle": [proxy]}],
    }
    document = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"one": server}}}}
    (folder / "caddy.json").write_text(json.dumps(document))
    program = cache() / "peers/node_modules/.bin/configurable-http-proxy"
    target = ["--default-target", f"http://127.0.0.1:{backend}", "--api-port", str(free_port())]
    own_node = str(cache() / "editor/bin/node")
    return [
        ("HAProxy", ["haproxy", "-f", str(folder / "haproxy.cfg")], haproxy),
        ("Caddy", [str(cache() / "peers/caddy"), "run", "--config", str(folder / "caddy.json")], caddy),
        ("configurable-http-proxy", [own_node, str(program), "--ip", "127.0.0.1", "--port", str(node), *target], node),
    ]


@asynccontextmanager
async def _started(command: Sequence[str], port: int) -> AsyncIterator[int]:
    """The process id of a peer that listens."""
    null = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(*command, stdout=null, stderr=null, start_new_session=True)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield child.pid
    finally:
        child.kill()
        await child.wait()


async def _cost(pid: int, port: int, folder: Path) -> float:
    """Microseconds of CPU for each request."""
    await load(port, folder, seconds=1)
    before = cpu_seconds(pid)
    requests = await load(port, folder, seconds=_SECONDS)
    return (cpu_seconds(pid) - before) / requests * 1e6
