"""The bar of long work where there is no terminal, or one for what is beside the results alone."""

import shlex
import sys
from pathlib import Path

import pytest

from mooring.cli import bar
from support.cli import run
from support.pseudo_terminal import terminal


def test_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line after some seconds, none for what is quicker, and no line that an upstream could have written for us."""
    with bar.Bar("beginning") as quick:
        quick.at(1, 2, "example.com/x@v1.0.0")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(bar, "SAY_S", -1.0)
    with bar.Bar("beginning") as slow:
        slow.at(1, 2, "example.com/x@v1.0.0\n\x1b[2J")
    assert capsys.readouterr().err == "1 of 2: example.com/x@v1.0.0\\n\\x1b[2J\n"


async def test_colours_that_are_wanted_make_no_terminal() -> None:
    """A log of a CI that asks for colours (FORCE_COLOR) gets lines, not a bar of endless width all the time."""
    code = "from mooring.cli import bar, progress\nwith bar.Bar('b') as it, progress._Line('l'): it.at(1, 2, 'x')"
    done = await run(sys.executable, "-c", code, environment={"FORCE_COLOR": "1"})
    assert (done.status, done.err) == (0, "")


async def test_a_bar_fits_the_terminal_that_shows_it(tmp_path: Path) -> None:
    """With the results in a file the bar is still as wide as the terminal of standard error."""
    code = "from mooring.cli.bar import Bar\nwith Bar('beginning') as it: it.at(1, 2, 'example.com/x@v1.0.0')"
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} >{shlex.quote(str(tmp_path / 'results'))}"
    async with terminal("/bin/sh", "-c", command, environment={}) as screen:
        assert await screen.ends() == 0
        await screen.until(b"example.com/x@v1.0.0")
        assert b" " * 80 not in screen.shown
