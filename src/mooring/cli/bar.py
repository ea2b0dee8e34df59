"""How far long work is: a bar on a terminal, a line now and then elsewhere, always on standard error."""

import time
from typing import TYPE_CHECKING, Self

from mooring.cli.color import console, live
from mooring.cli.language import _
from mooring.cli.output import note
from mooring.cli.plain import clean

if TYPE_CHECKING:
    from rich.progress import Progress

_WIDTH = 24
SAY_S = 5.0
"""A log gets a line so often; short work none."""


class Bar:
    """For `with`: shows `begin` until it is known how much there is to do, then the bar; nothing of it stays."""

    def __init__(self, begin: str) -> None:
        self._said_at = time.monotonic()
        self._progress = _progress() if live() else None
        if self._progress is not None:
            self._task = self._progress.add_task(begin, total=None, count="")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def at(self, done: int, total: int, label: str) -> None:
        """So many are done, `label` the last of them."""
        if self._progress is not None:
            self._progress.update(
                self._task, completed=done, total=total, description=clean(label), count=f"{done}/{total}"
            )
        elif time.monotonic() - self._said_at > SAY_S:
            self._said_at = time.monotonic()
            note(_("{done} of {total}: {label}").format(done=done, total=total, label=clean(label)))


def _progress() -> "Progress":
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - see color
    from rich.table import Column  # noqa: PLC0415

    # The label takes what is left of the line: a longer one would break it, and each refresh leave a line behind.
    label = TextColumn(
        "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    # The usual colour of what is done is taken for an error.
    bar = BarColumn(_WIDTH, complete_style="green", finished_style="green")
    columns = (bar, TextColumn("{task.fields[count]}"), label)
    return Progress(*columns, console=console(stderr=True), transient=True, expand=True)
