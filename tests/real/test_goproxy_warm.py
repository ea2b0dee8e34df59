"""`mooring goproxy warm` as a person sees it: in a terminal, in a log, when something fails, when it is interrupted."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.goproxy import leftovers
from support.cli import run
from support.goupstream import Fault, Upstream, go
from support.pseudo_terminal import terminal

LONG = "example.com/a/rather/long/path/of/a/module/that/no/terminal/has/room/for"
MODULES = [f"{LONG}/m{number}" for number in range(4)]
FILES = 3 * len(MODULES)
PROGRAM = Path(sys.executable).parent / "mooring"
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shop:
    """An upstream, a go.mod that needs all of its modules, and the command that warms a store with them."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.upstream = upstream
        self.environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        mod = folder / "go.mod"
        mod.write_text("module example.com/main\n\ngo 1.16\n\n" + "".join(f"require {m} v1.0.0\n" for m in MODULES))
        options = ["--store", str(folder / "store"), "--upstream", upstream.url, "--sumdb", upstream.sumdb]
        self.command = [str(PROGRAM), "goproxy", *options, "--go", str(go()), "warm", str(mod)]
        self.last = threading.Event()

    def hold(self) -> None:
        """Keep the last module's zip back until `last` is set."""
        self.upstream.faults[f"{MODULES[-1]}/@v/v1.0.0.zip"] = Fault(pace=lambda _: self.last.wait(60) and None)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """With four modules."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        for module in MODULES:
            upstream.publish(module, "v1.0.0")
        shop = Shop(tmp_path, upstream)
        yield shop
        shop.last.set()


def lines(shown: bytes) -> list[str]:
    """What stood in each line, each time that it was written."""
    return [line for line in re.split(r"[\r\n]", _CODES.sub("", shown.decode())) if line.strip()]


@pytest.mark.parametrize("columns", [80, 40])
async def test_a_bar_in_a_terminal(shop: Shop, columns: int) -> None:
    """It fits into the line, shows how many of how many and the last of them, and is gone at the end."""
    shop.hold()
    async with terminal(*shop.command, environment={**shop.environment, "COLUMNS": str(columns)}) as screen:
        await screen.until(f"{FILES - 1}/{FILES}".encode())
        shop.last.set()
        assert await screen.ends() == 0
        await screen.until(b"files are here")
        *bars, last = lines(screen.shown)
        assert last == f"{FILES} of {FILES} files are here"
        assert max(map(len, bars)) <= columns
        assert "reading the module graph"[: columns - 30] in bars[0]
        assert any(f"{FILES - 1}/{FILES} example.com/a"[: columns - 26] in bar for bar in bars)
        # The cursor is back, and the line that the bar was in is empty.
        assert b"\x1b[?25h" in screen.shown
        assert screen.shown.rindex(b"\x1b[2K") < screen.shown.rindex(b"files are here")


async def test_no_bar_in_a_log(shop: Shop) -> None:
    """Without a terminal the result is a line of its own, and nothing moves a cursor."""
    done = await run(*shop.command, environment=shop.environment)
    assert (done.status, done.out) == (0, f"{FILES} of {FILES} files are here\n")
    assert "\x1b" not in done.err
    assert "\r" not in done.err


async def test_a_failure_in_the_middle(shop: Shop) -> None:
    """The others are fetched all the same; which version failed and why is said below the bar, without its tricks."""
    evil = Fault(status=500, body=b"out of order \x1b[2J\x1b]0;owned\x07")
    shop.upstream.faults[f"{MODULES[1]}/@v/v1.0.0.zip"] = evil
    async with terminal(*shop.command, environment=shop.environment) as screen:
        assert await screen.ends() == 5
        await screen.until(b"could not be had")
        *_, here, why, end = lines(screen.shown)
        assert here == f"{FILES - 1} of {FILES} files are here"
        assert why == f"{MODULES[1]}@v1.0.0: {shop.upstream.url} answered 500"
        assert end == "mooring: 1 of the files could not be had"
        assert b"\x1b[2J" not in screen.shown
        assert b"owned" not in screen.shown


async def test_a_graph_that_cannot_be_read(shop: Shop) -> None:
    """What the go command says about it is the answer, and the bar is gone."""
    shop.upstream.files.pop(f"{MODULES[2]}/@v/v1.0.0.mod")
    async with terminal(*shop.command, environment=shop.environment) as screen:
        assert await screen.ends() == 2
        await screen.until(b"not found")
        assert b"\x1b[?25h" in screen.shown
        assert "Traceback" not in screen.shown.decode()


async def test_an_interrupted_one(shop: Shop) -> None:
    """Ctrl-C ends it, and the cursor is back; what had come is kept, and the next one goes on from there."""
    shop.hold()
    async with terminal(*shop.command, environment=shop.environment) as screen:
        await screen.until(f"{FILES - 1}/{FILES}".encode())
        screen.type("\x03")
        assert await screen.ends() == 130
        await screen.until(b"\x1b[?25h")
        assert "Traceback" not in screen.shown.decode()
    shop.last.set()
    shop.upstream.asked.clear()
    done = await run(*shop.command, environment=shop.environment)
    assert (done.status, done.out) == (0, f"{FILES} of {FILES} files are here\n")
    assert [path for path in shop.upstream.asked if path.endswith(".zip")] == [f"{MODULES[-1]}/@v/v1.0.0.zip"]


def test_a_killed_one_leaves_nothing_for_ever(shop: Shop, tmp_path: Path) -> None:
    """What it had in hand is in the store's folder, where the next sweep removes it."""
    shop.hold()
    held = f"{MODULES[-1]}/@v/v1.0.0.zip"
    with subprocess.Popen(shop.command, env=shop.environment, stderr=subprocess.DEVNULL) as killed:
        while held not in shop.upstream.asked and killed.poll() is None:
            time.sleep(0.05)  # noqa: TID251 - nothing else runs
        killed.kill()
    [left] = (tmp_path / "store").glob(".mooring-*")
    os.utime(left, (1, 1))
    leftovers.sweep(tmp_path / "store")
    assert not left.exists()
