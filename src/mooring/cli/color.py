"""Whether colours are wanted, and the two consoles. Rich is imported by the first command that writes a table.

Rich itself leaves colours out for a pipe, for NO_COLOR and for TERM=dumb.
"""

import contextlib
import os
import shutil
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# A pipe has no width: nothing is cut there, so that grep and awk see all of it.
UNLIMITED = 100_000
STDERR = 2
_WANTED = True


def off() -> None:
    """No colours from here on."""
    global _WANTED  # noqa: PLW0603 - one process, one command line
    _WANTED = False


def live() -> bool:
    """Whether standard error can show what changes. Rich takes every log for a terminal where FORCE_COLOR is set."""
    return sys.stderr.isatty()


def width(*, stderr: bool = False) -> int:
    """The columns that a line may have: COLUMNS, else the terminal's, else without limit."""
    columns = shutil.get_terminal_size(fallback=(0, 0)).columns
    if not columns and stderr:
        # The results may go to a file while a terminal shows how far they are: what is wider would flood it.
        with contextlib.suppress(OSError):
            columns = os.get_terminal_size(STDERR).columns
    return columns or UNLIMITED


@cache
def console(*, stderr: bool = False) -> "Console":
    """The console that writes to standard output, or to standard error."""
    from rich.console import Console  # noqa: PLC0415 - costs 70 ms, and not every command writes a table

    return Console(
        stderr=stderr,
        no_color=not _WANTED or None,
        highlight=False,
        markup=False,
        emoji=False,
        width=width(stderr=stderr),
    )
