"""How results are written: `-o table`, `json` or `yaml`; durations, sizes and moments as a person reads them.

A table never wraps: columns that do not fit are left out by their `rank`, and the last resort is an ellipsis.
Text that came from elsewhere never reaches the terminal with its control characters (ECMA-48): one of them could
rewrite what stands above it.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

import typer
from pydantic import BaseModel

from mooring.cli.color import console, width
from mooring.cli.language import _
from mooring.cli.plain import clean
from mooring.errors import InvalidInput
from mooring.model.shown import span

T = TypeVar("T")
GAP = 2
NARROWEST = 8
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# Python reads no number of more than 4,300 digits.
_DURATION = re.compile(r"(\d{1,99})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": _MINUTE, "h": _HOUR, "d": _DAY}


class Format(StrEnum):
    """The form of what is written to standard output."""

    table = "table"
    json = "json"
    yaml = "yaml"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", metavar="FORMAT", help=_("table, json or yaml."), show_default=False),
]


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column: `value` is the cell's text, `style` its colour.

    Columns of `rank` 0 are always there, others as long as there is room, in the order of their ranks. Only `elastic`
    ones may be cut.
    """

    title: str
    value: Callable[[T], str]
    rank: int = 0
    style: Callable[[T], str] = lambda _item: ""
    right: bool = False
    elastic: bool = False


def rows(items: Sequence[BaseModel], columns: Sequence[Column[Any]], form: Format, *, empty: str) -> None:
    """Write a list. An empty table is a sentence on standard error, so that a pipe gets nothing."""
    if form is not Format.table:
        write([_plain(item) for item in items], form)
    elif items:
        _table(items, columns)
    else:
        note(empty)


def row(item: BaseModel, columns: Sequence[Column[Any]], form: Format) -> None:
    """Write one thing: a person sees a table of one line, a program gets the document, which is no list."""
    if form is not Format.table:
        write(_plain(item), form)
    else:
        _table([item], columns)


def emit(findings: Sequence[Mapping[str, str]], form: Format) -> None:
    """Write rows that are plain text already; the titles are their keys. Here long text goes on below itself."""
    if form is not Format.table:
        write([dict(item) for item in findings], form)
        return
    from rich.table import Table  # noqa: PLC0415 - see color

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for title in findings[0] if findings else ():
        table.add_column(title.upper(), overflow="fold")
    for item in findings:
        table.add_row(*map(clean, item.values()))
    _print_trimmed(table)


def record(item: BaseModel, fields: Mapping[str, str], form: Format) -> None:
    """Write one thing: as a table, a line a field; empty fields are left out."""
    if form is not Format.table:
        write(_plain(item), form)
        return
    from rich.text import Text  # noqa: PLC0415 - see color

    longest = max(len(name) for name, value in fields.items() if value)
    with console().capture() as capture:
        for name, value in fields.items():
            for number, line in enumerate(value.splitlines()):
                label = "" if number else name
                text = Text.assemble((f"{label:<{longest}}", "bold"), f"  {clean(line)}")
                console().print(text, soft_wrap=True)
    sys.stdout.write(capture.get())


def value(name: str, text: str, form: Format) -> None:
    """Write one text: alone as a table, so that `$(…)` takes it; else under its name."""
    if form is Format.table:
        sys.stdout.write(f"{text}\n")
    else:
        write({name: text}, form)


def write(value: object, form: Format) -> None:
    """Write plain data as JSON or YAML."""
    if form is Format.yaml:
        import yaml  # noqa: PLC0415 - asked for rarely

        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def stream(item: BaseModel, line: str, form: Format) -> None:
    """Write one thing of many that come one after another: a line, a JSON line or a YAML document, at once."""
    if form is Format.table:
        sys.stdout.write(f"{line}\n")
    elif form is Format.json:
        sys.stdout.write(json.dumps(_plain(item), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("---\n")
        write(_plain(item), form)
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something to a person, beside the result."""
    sys.stderr.write(f"{text}\n")


def confirm(question: str) -> None:
    """Ask on standard error; anything but yes ends the command.

    Raises:
        InvalidInput: nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise InvalidInput(_("nobody can be asked here: say --yes"), field="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def ago(then: datetime | None) -> str:
    """How long ago, in its largest unit: `40 s`, `3 min`, `2 h`, `5 d`."""
    return span((datetime.now(UTC) - then).total_seconds()) if then is not None else ""


def until(then: datetime) -> str:
    """How long until then, in its largest unit; a minute that has begun counts, so that half an hour is 30 min."""
    seconds = (then - datetime.now(UTC)).total_seconds()
    return span(seconds if seconds < _MINUTE else math.ceil(seconds / _MINUTE) * _MINUTE)


def moment(then: datetime | None) -> str:
    """A moment on this machine's clock, with how far away it is."""
    if then is None:
        return ""
    past = then <= datetime.now(UTC)
    distance = _("{span} ago").format(span=ago(then)) if past else _("in {span}").format(span=until(then))
    return f"{then.astimezone():%Y-%m-%d %H:%M:%S} ({distance})"


def duration(text: str, *, field: str, least: str = "", most: str = "") -> int:
    """Seconds of `90s`, `30m`, `2h`, `1d`, or of a plain number; `least` and `most` are written in the same way.

    Raises:
        InvalidInput: otherwise, less than `least` or more than `most`.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidInput(_("{field}: must be like 90s, 30m, 2h or 1d").format(field=field), field=field)
    seconds = int(match[1]) * _UNITS[match[2]]
    if least and seconds < duration(least, field=field):
        raise InvalidInput(_("{field}: must be at least {least}").format(field=field, least=least), field=field)
    if most and seconds > duration(most, field=field):
        raise InvalidInput(_("{field}: must be at most {most}").format(field=field, most=most), field=field)
    return seconds


def _plain(item: BaseModel) -> Any:  # noqa: ANN401 - JSON
    return item.model_dump(mode="json")


def _table(items: Sequence[Any], columns: Sequence[Column[Any]]) -> None:
    from rich.cells import cell_len  # noqa: PLC0415 - see color
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    cells = {column.title: [clean(column.value(item)) for item in items] for column in columns}
    sizes = {title: max(cell_len(text) for text in (title, *texts)) for title, texts in cells.items()}
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    shown = _fitting([column for column in columns if any(cells[column.title])], sizes)
    widths = _widths(shown, sizes)
    for column in shown:
        table.add_column(
            column.title,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if column.right else "left",
            width=widths[column.title],
        )
    for number, item in enumerate(items):
        table.add_row(*(Text(cells[column.title][number], column.style(item)) for column in shown))
    _print_trimmed(table)


def _print_trimmed(table: object) -> None:
    # Rich fills every line up to its table's width: blanks that a paste or a diff would show.
    with console().capture() as capture:
        console().print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _widths(columns: Sequence[Column[Any]], sizes: Mapping[str, int]) -> dict[str, int]:
    """Widths that fit: the widest elastic column gives first."""
    widths = {column.title: sizes[column.title] for column in columns}
    elastic = [column.title for column in columns if column.elastic]
    excess = sum(size + GAP for size in widths.values()) - GAP - width()
    while excess > 0 and elastic:
        widest = max(elastic, key=lambda title: widths[title])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _fitting(columns: list[Column[Any]], sizes: Mapping[str, int]) -> list[Column[Any]]:
    """The columns that have room, in their order: what must be there, then by rank."""
    left = width() + GAP
    shown = set()
    for column in sorted(columns, key=lambda column: column.rank):
        room = sizes[column.title] + GAP
        if column.rank == 0 or room <= left:
            shown.add(column.title)
            left -= room
    return [column for column in columns if column.title in shown]
