"""`mooring template`: what workspaces are made from."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from mooring.api.http.schemas import TemplatePage, TemplateSummary
from mooring.cli.application import noun
from mooring.cli.client import connect
from mooring.cli.completion import templates
from mooring.cli.language import _
from mooring.cli.output import Column, Format, Output, note, record, rows
from mooring.cli.plain import clean
from mooring.errors import InvalidInput
from mooring.model.shown import span
from mooring.model.template import Template

app = noun(_("See what workspaces are made from."))


@app.command("list", help=_("List templates."))
def list_(*, output: Output = Format.table) -> None:
    """List templates; for an administrator, with the files that are none."""
    with connect() as api:
        page = api.get("templates", TemplatePage)
    columns = [
        Column[TemplateSummary](_("NAME"), lambda item: item.name),
        Column[TemplateSummary](_("VERSION"), lambda item: str(item.version), rank=1, right=True),
        Column[TemplateSummary](_("RUNTIME"), lambda item: item.runtime),
        Column[TemplateSummary](_("DESCRIPTION"), lambda item: item.description, elastic=True),
    ]
    rows(page.items, columns, output, empty=_("There are no templates."))
    for mistake in page.mistakes:
        note(clean(mistake))


@app.command(help=_("Show a template."))
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("Name of a template."), autocompletion=templates)],
    *,
    version: Annotated[int | None, typer.Option("--version", metavar="N", min=1, help=_("An earlier version."))] = None,
    output: Output = Format.table,
) -> None:
    """Show one template."""
    with connect() as api:
        found = api.get(f"templates/{quote(name, safe='')}", Template, version=version)
    record(found, _fields(found), output)


@app.command(help=_("Check a template's file, without a server."))
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("A TOML file."))], *, output: Output = Format.table
) -> None:
    """Check one file: names the file, the line and the key of each mistake."""
    from mooring.workspaces.templates import BadTemplate, parse  # noqa: PLC0415 - only this verb reads files

    try:
        found = parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    except BadTemplate as error:
        *first, last = [str(mistake) for mistake in error.mistakes]
        for mistake in first:
            note(f"mooring: {clean(mistake)}")
        raise InvalidInput(last) from error
    record(found, _fields(found), output)


def _fields(item: Template) -> dict[str, str]:
    limits = {name: value for name, value in item.limits.model_dump().items() if value is not None}
    return {
        _("Name"): item.name,
        _("Version"): str(item.version),
        _("Description"): item.description,
        _("Runtime"): item.runtime,
        _("Image"): item.image or "",
        _("Command"): "\n".join(item.editor.command),
        _("Health path"): item.editor.health_path,
        _("Repository"): item.repository or "",
        _("Idle"): _("stops after {span}").format(span=span(item.idle.after_s))
        if item.idle.after_s
        else _("never stops"),
        _("Limits"): "\n".join(f"{name} {value}" for name, value in limits.items()),
        _("Environment"): "\n".join(f"{name}={value}" for name, value in item.environment.items()),
    }
