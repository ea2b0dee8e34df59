"""Writes the generated part of docs/reference/cli.md from the command line itself; `--check` only compares.

Run it after a change of a command: `.venv/bin/python tools/cli_reference.py`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mooring.cli.application import placeholder, written
from mooring.cli.main import REGISTRATIONS, app, load
from mooring.errors import OUTCOMES, MooringError

PAGE = Path(__file__).parent.parent / "docs/reference/cli.md"
BEGIN = "<!-- From here on written by tools/cli_reference.py. -->\n"


def main() -> int:
    """Write or compare; 1 when the page is out of date."""
    head, mark, now = PAGE.read_text().partition(BEGIN)
    wanted = "\n" + "\n".join([*statuses(), "", *commands()]) + "\n"
    if "--check" in sys.argv:
        if mark and now == wanted:
            return 0
        print(f"{PAGE.name} is out of date: .venv/bin/python tools/cli_reference.py", file=sys.stderr)
        return 1
    PAGE.write_text(head + BEGIN + wanted)
    return 0


def statuses() -> Iterator[str]:
    """The exit statuses, from the one table of errors."""
    meanings: dict[int, list[str]] = {}
    for kind, row in OUTCOMES.items():
        meanings.setdefault(row.exit, []).append("anything else" if kind is MooringError else row.title.lower())
    yield from ("## Exit statuses", "", "| status | meaning |", "|---|---|", "| 0 | done |")
    for status in sorted(meanings):
        yield f"| {status} | {', '.join(meanings[status])} |"
    yield "| 130 | interrupted (Ctrl-C) |"


def commands() -> Iterator[str]:
    """Every command with its options."""
    yield from ("## Options before the command", "", *options(typer.main.get_command(app)))
    for item in REGISTRATIONS:
        if not item.hidden:
            yield from section(f"mooring {item.name}", load(item), 2)


def section(name: str, command: Any, level: int) -> Iterator[str]:  # noqa: ANN401 - Typer's own type is private
    """A command, then the commands below it."""
    below = getattr(command, "commands", {})
    arguments = "".join(f" {written(p)}" for p in command.params if p.param_type_name == "argument")
    yield from (f"{'#' * level} `{name}{arguments}`", "", " ".join(command.help.split()), "")
    if not below:
        yield from options(command)
    for verb, child in below.items():
        yield from section(f"{name} {verb}", child, level + 1)


def options(command: Any) -> Iterator[str]:  # noqa: ANN401
    """The table of a command's arguments and options, if it has any."""
    rows = [row for param in command.params if not param.hidden and (row := described(param))]
    if rows:
        yield from ("| | |", "|---|---|", *rows, "")


def described(param: Any) -> str:  # noqa: ANN401
    """One row."""
    text = " ".join((param.help or "").split()).replace("|", "\\|")
    if param.param_type_name == "argument":
        return f"| `{placeholder(param)}` | {text} |"
    *first, last = sorted([*param.opts, *param.secondary_opts], key=len)
    names = ", ".join(f"`{name}`" for name in [*first, f"{last} {param.metavar}" if param.metavar else last])
    known = param.default
    default = f" ({known})" if isinstance(known, str | int) and not isinstance(known, bool) and f"{known}" else ""
    return f"| {names} | {text}{default} |"


if __name__ == "__main__":
    sys.exit(main())
