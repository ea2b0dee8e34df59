"""A WebSocket's frames as no library writes them: the gateway reads along, holds nothing up, and misses nobody."""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mooring.model.routes import Access, Route
from mooring.model.routes import Backend as Target
from support.nginx import Backend, Gateway, Request, backend, gateway

TEXT, BINARY, AGAIN, PING = 1, 2, 0, 9
MASK = b"\x9c\x00\xf1\x37"
KEY = b"\x0eremoteterminal\x01\x06$inputx"
"""A keystroke in a terminal, as VS Code sends it."""
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
VSCODE = "/?reconnectionToken=x"
MOST = 64


def frame(payload: bytes, opcode: int = BINARY, *, last: bool = True, length: int | None = None) -> bytes:
    """A masked frame; `length` is what its head says when that is not how long it is."""
    said = len(payload) if length is None else length
    size = bytes((128 | said,)) if said < 126 else struct.pack(">BH", 254, said) if said < 2**16 else None
    head = bytes((128 * last | opcode,)) + (size or struct.pack(">BQ", 255, said)) + MASK
    whole = MASK * (len(payload) // 4 + 1)
    return head + bytes(a ^ b for a, b in zip(payload, whole, strict=False))


@dataclass
class Tunnels:
    """A gateway of one worker, and what arrived behind it by target."""

    edge: Gateway
    running: Backend
    arrived: dict[str, int]

    async def open(self, number: int = 0, target: str = VSCODE) -> asyncio.StreamWriter:
        """A socket of the workspace of that number."""
        reader, writer = await self.edge.connect()
        authority = self.edge.authority(f"w{number}.test")
        head = f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nOrigin: http://{authority}\r\n"
        writer.write(f"{head}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return writer

    async def has(self, number: int, size: int) -> None:
        """Wait until that many bytes arrived for the workspace."""
        async with asyncio.timeout(20):
            while self.arrived.get(self.edge.authority(f"w{number}.test"), 0) != size:
                await asyncio.sleep(0.02)

    async def active(self) -> set[int]:
        """The workspaces in which somebody did something, once what was sent until now has been told."""
        return {int(name) for name in (await self.edge.sink.read()).activity}


@pytest.fixture
async def tunnels(tmp_path: Path) -> AsyncIterator[Tunnels]:
    """Workspaces whose sockets take everything."""
    arrived: dict[str, int] = {}

    async def swallow(request: Request) -> None:
        name = request.header("host") or ""
        request.writer.write(SWITCHED)
        while data := await request.reader.read(2**16):
            arrived[name] = arrived.get(name, 0) + len(data)

    async with backend(swallow) as running, gateway(tmp_path, workers=1) as edge:
        target, public = (Target(address=running.address),), Access(kind="public")
        names = [(f"w{number}.test", f"{number:010}") for number in range(MOST)]
        await edge.publish(
            *(Route(name=n, host=n, backends=target, access=public, workspace=w) for n, w in names),
            Route(name="alive", host="alive.test", state="stopped", access=public),
        )
        yield Tunnels(edge, running, arrived)


@pytest.mark.parametrize("length", [2**16, 2**31 - 20, 2**31, 2**32 + 3, 2**53 + 1, 2**63, 2**64 - 1])
async def test_a_frame_of_any_length_holds_nobody_up(tunnels: Tunnels, length: int) -> None:
    """All that comes of it is passed on, and others are answered: a worker that turned in a circle would do neither."""
    writer = await tunnels.open()
    sent = frame(b"x" * 60_000, length=length)
    writer.write(sent)
    await tunnels.has(0, len(sent))
    assert (await tunnels.edge.get("alive.test")).status == 503
    assert await tunnels.active() == set()
    writer.transport.abort()


async def test_a_keystroke_counts_wherever_its_bytes_are_cut(tunnels: Tunnels) -> None:
    """Behind a ping, an empty frame and one of 200 bytes, in two pieces, whichever they are."""
    before = frame(b"p", PING) + frame(b"") + frame(b"y" * 200)
    key = frame(KEY)
    whole = before + key
    cuts = range(len(before) - 10, len(whole))
    assert len(cuts) <= MOST
    writers = [await tunnels.open(number) for number in range(len(cuts))]
    for writer, cut in zip(writers, cuts, strict=True):
        writer.write(whole[:cut])
    for number, cut in enumerate(cuts):
        await tunnels.has(number, cut)
    assert await tunnels.active() == set()
    for writer, cut in zip(writers, cuts, strict=True):
        writer.write(whole[cut:])
    for number in range(len(cuts)):
        await tunnels.has(number, len(whole))
    assert await tunnels.active() == set(range(len(cuts)))
    for writer in writers:
        writer.transport.abort()


async def test_a_keystroke_behind_thousands_of_tiny_frames_counts(tunnels: Tunnels) -> None:
    """Empty messages, pings and pieces of one message are read one by one; none of them is a person."""
    idle = frame(b"") + frame(b"", PING) + frame(b"a", TEXT, last=False) + frame(b"b", AGAIN)
    writer = await tunnels.open()
    writer.write(idle * 20_000)
    await tunnels.has(0, len(idle) * 20_000)
    assert await tunnels.active() == set()
    writer.write(frame(KEY, TEXT, last=False) + frame(b"", AGAIN))
    await tunnels.has(0, len(idle) * 20_000 + len(frame(KEY)) + len(frame(b"")))
    assert await tunnels.active() == {0}
    writer.transport.abort()


async def test_a_frame_that_nobody_masked_is_read_too(tunnels: Tunnels) -> None:
    """A browser masks all of them; what a backend makes of one that is not is the backend's business."""
    plain = bytes((130, len(KEY))) + KEY
    writer = await tunnels.open()
    writer.write(plain)
    await tunnels.has(0, len(plain))
    assert await tunnels.active() == {0}
    writer.transport.abort()
