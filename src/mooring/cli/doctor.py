"""`mooring doctor`: what is missing, misconfigured or stale, and what to type."""

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from mooring.cli.color import width
from mooring.cli.language import _
from mooring.cli.output import Format, Output, emit
from mooring.server.doctor.examination import examine
from mooring.server.doctor.findings import Finding, Verdict
from mooring.settings import home

_INDENT = 23


def doctor(
    *,
    home_: Annotated[
        Path | None, typer.Option("--home", metavar="FOLDER", help=_("Where all state is kept (MOORING_HOME)."))
    ] = None,
    output: Output = Format.table,
) -> None:
    """Look at this machine; ends with 1 when something keeps Mooring or a part of it from working."""
    findings = tuple(examine(home(home_)))
    if output is Format.table:
        sys.stdout.write(_text(findings, width()))
    else:
        emit(
            [{"verdict": f.verdict.value, "what": f.what, "detail": f.detail, "type": f.remedy} for f in findings],
            output,
        )
    if any(finding.verdict in (Verdict.missing, Verdict.wrong) for finding in findings):
        raise typer.Exit(1)


def _text(findings: Sequence[Finding], columns: int) -> str:
    lines: list[str] = []
    for finding in findings:
        head = f"{finding.verdict:<8} {finding.what:<13} "
        lines.append(
            fill(finding.detail, columns, initial_indent=head, subsequent_indent=" " * _INDENT, break_long_words=False)
        )
        if finding.remedy:
            # On a line of its own and never broken: it is there to be copied.
            lines.append(f"{'':{_INDENT}}$ {finding.remedy}")
    return "\n".join(lines) + "\n"
