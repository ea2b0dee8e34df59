"""Our module proxy in a thread of its own with a loop of its own, so that the real go command can be a client."""

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import httpx2

from mooring.goproxy.config import Config
from mooring.goproxy.service import Lifetimes
from mooring.server.goproxy import Served, serving
from support.goupstream import Upstream, go

SMALL = "example.com/x/@v/v1.0.0"
BIG = "example.com/big/@v/v1.0.0.zip"
"""What `upstream` has: a module of a few bytes, and the zip of one that is not sent before it is half received."""


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """A local upstream with a checksum database, and two modules in it."""
    with Upstream(folder / "upstream").serving() as served:
        served.publish("example.com/x", "v1.0.0")
        served.publish("example.com/big", "v1.0.0", {"x.go": "package x\n", "data.bin": os.urandom(700_000)})
        yield served


def doubting(folder: Path, upstream: Upstream) -> Config:
    """A proxy in front of it that believes nothing for long."""
    lifetimes = Lifetimes(mutable_s=0.0, absent_s=30.0, failed_s=0.0)
    return Config(folder / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go(), lifetimes=lifetimes)


@contextmanager
def running(config: Config) -> Iterator[Served]:
    """Serve `config` on a free port until the end of the block."""
    ready: Future[Served] = Future()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with serving(config, "127.0.0.1", 0) as served:
            ready.set_result(served)
            await stop.wait()

    def work() -> None:
        try:
            loop.run_until_complete(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ready.result(30)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def get(proxy: Served, path: str, **headers: str) -> httpx2.Response:
    """One GET; header names have underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.get(f"{proxy.url}/{path}", headers=named, timeout=30)


def wait_for(file: Path) -> None:
    """A zip is kept a moment after its last byte was sent."""
    for _ in range(500):
        if file.exists():
            return
        threading.Event().wait(0.01)
    raise AssertionError(file)
