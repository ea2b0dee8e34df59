"""1,000 open WebSockets while 1,000 routes change; and what the tunnel costs beside `proxy_pass`."""

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.gateway_load import KEY, cookie, cpu_seconds, plain_nginx, route, workers
from mooring.model.grants import Grants
from support.nginx import Gateway, gateway

_SOCKETS = 1000
_CHANGES = 1000
_MESSAGES = 20_000
_SIZE = 1024


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with serve(_echo, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            async with gateway(folder / "ours") as ours:
                dropped, changed = await _dropped(ours, port)
            ours_us, plain_us = await _costs(folder, port)
    note = f"{_SIZE} bytes there and back"
    return [
        {"name": f"of {_SOCKETS} WebSockets dropped", "value": dropped, "unit": "", "limit": 0},
        {"name": f"  workers replaced in {_CHANGES} changes", "value": changed, "unit": "", "limit": 0},
        {"name": "tunnel, CPU a message", "value": ours_us, "unit": "µs", "limit": None, "note": note},
        {"name": "  proxy_pass", "value": plain_us, "unit": "µs", "limit": None},
    ]


async def _echo(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            await socket.send(message)


def _dial(port: int, path: str, number: int = 0) -> connect:
    authority = f"h{number}.test:{port}"
    headers = {"Cookie": cookie(number), "Origin": f"http://{authority}"}
    uri = f"ws://{authority}{path}"
    return connect(
        uri,
        host="127.0.0.1",
        port=port,
        additional_headers=headers,
        proxy=None,
        ping_interval=None,
        compression=None,
        open_timeout=60,
    )


async def _dropped(ours: Gateway, port: int) -> tuple[int, int]:
    """How many of the sockets did not answer after the changes, and how many workers are not the ones of before."""
    await ours.publish(route(0, f"127.0.0.1:{port}"), complete=True, grants=Grants(keys=(KEY,)))
    before = workers(ours.nginx.pid)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(_dial(ours.port, "/tunnel")) for _ in range(_SOCKETS)]
        for number in range(_CHANGES):
            await ours.publish(route(1 + number, f"127.0.0.1:{port}"))
        await asyncio.sleep(1)
        alive = [await _answers(socket) for socket in sockets]
    return alive.count(False), len(set(before) - set(workers(ours.nginx.pid)))


async def _answers(socket: ClientConnection) -> bool:
    try:
        async with asyncio.timeout(10):
            await socket.send("here?")
            return await socket.recv() == "here?"
    except (ConnectionClosed, TimeoutError):
        return False


async def _costs(folder: Path, port: int) -> tuple[float, float]:
    """Microseconds of a worker's CPU for a message there and back: our tunnel's, and proxy_pass's."""
    async with (
        plain_nginx(folder / "plain", "return 404;", upstream=port) as (plain_pid, plain_port),
        gateway(folder / "one", workers=1) as ours,
    ):
        await ours.publish(route(0, f"127.0.0.1:{port}"), complete=True, grants=Grants(keys=(KEY,)))
        (pid,) = workers(ours.nginx.pid)
        return await _cost(pid, ours.port), await _cost(plain_pid, plain_port)


async def _cost(pid: int, port: int) -> float:
    async with _dial(port, "/tunnel") as socket:
        before, message, since = cpu_seconds(pid), b"x" * _SIZE, time.monotonic()
        for done in range(_MESSAGES):
            await socket.send(message)
            await socket.recv()
            if time.monotonic() - since > 20:
                return (cpu_seconds(pid) - before) / (done + 1) * 1e6
        return (cpu_seconds(pid) - before) / _MESSAGES * 1e6
