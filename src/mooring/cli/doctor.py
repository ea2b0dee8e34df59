"""`mooring doctor`: what is missing, misconfigured or stale, and what to type."""

from pathlib import Path
from typing import Annotated

import typer

from mooring.cli.language import _
from mooring.cli.output import Format, Output, emit
from mooring.server.doctor import Verdict, examine
from mooring.settings import home


def doctor(
    *,
    home_: Annotated[Path | None, typer.Option("--home", help=_("Where all state is kept (MOORING_HOME)."))] = None,
    output: Output = Format.table,
) -> None:
    """Look at this machine; ends with 1 when something keeps Mooring or a part of it from working."""
    findings = tuple(examine(home(home_)))
    emit(
        [{"verdict": f.verdict, "what": f.what, "detail": f.detail, "type": f.remedy} for f in findings],
        output,
    )
    if any(finding.verdict in (Verdict.missing, Verdict.wrong) for finding in findings):
        raise typer.Exit(1)
