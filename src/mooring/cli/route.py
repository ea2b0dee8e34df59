"""`mooring route`: the gateway's table, and sections that are published from files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
import yaml

from mooring.api.http.schemas import RouteEntry, Section, SectionPublish, Workspace
from mooring.cli.application import noun
from mooring.cli.client import Api, connect, document
from mooring.cli.completion import sources
from mooring.cli.language import _
from mooring.cli.output import Column, Format, Output, note, row, rows
from mooring.errors import InvalidInput
from mooring.model.routes import Access, Backend, RouteState

app = noun(_("See and publish routes of the gateway."))

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help=_("Name of a published section."), autocompletion=sources)
]


@app.command("list", help=_("List the routes, and who lost a conflict."))
def list_(
    *,
    source: Annotated[str | None, typer.Option("--source", metavar="SOURCE", help=_("Only this source's."))] = None,
    output: Output = Format.table,
) -> None:
    """List the routes of the server's table and of each gateway's."""
    with connect() as api:
        every = api.pages("routes", RouteEntry)
        found = sorted(
            (item for item in every if source in (None, item.source)),
            key=lambda item: (item.route["host"], item.route["path"]),
        )
        whose = _names(api) if output is Format.table and any(item.route["workspace"] for item in found) else {}
    columns = [
        Column[RouteEntry](_("HOST"), lambda item: item.route["host"], elastic=True),
        Column[RouteEntry](_("PATH"), lambda item: item.route["path"], elastic=True),
        Column[RouteEntry](
            _("TO"),
            lambda item: _target(item, whose),
            elastic=True,
            style=lambda item: "" if item.lost_to is None else "yellow",
        ),
        Column[RouteEntry](_("ACCESS"), _access, rank=2),
        Column[RouteEntry](_("SOURCE"), _source, rank=1),
        Column[RouteEntry](_("NAME"), lambda item: item.name, rank=3),
    ]
    rows(found, columns, output, empty=_("No routes."))


@app.command(help=_("List the sources of routes."))
def sections(*, output: Output = Format.table) -> None:
    """List the sections of the server's table and of each gateway's."""
    with connect() as api:
        found = list(api.pages("routes/sections", Section))
    rows(found, _SECTION, output, empty=_("No sections."))


@app.command(help=_("Publish a file of routes as a section; it replaces that section as a whole."))
def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("YAML or JSON: routes: […], and rank if wanted."))],
    *,
    source: Annotated[
        str | None, typer.Option("--source", metavar="SOURCE", help=_("Name of the section; else the file's name."))
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", metavar="N", help=_("The smaller rank wins a conflict (500)."))
    ] = None,
    output: Output = Format.table,
) -> None:
    """Publish one section."""
    given = _read(file)
    if rank is not None:
        given["rank"] = rank
    body = document(SectionPublish, **given)
    with connect() as api:
        made = api.put(f"routes/sections/{quote(source or file.stem, safe='')}", Section, body)
    row(made, _SECTION, output)


@app.command(help=_("Withdraw a published section."))
def withdraw(source: Source) -> None:
    """Withdraw one section."""
    with connect() as api:
        api.delete(f"routes/sections/{quote(source, safe='')}")
    note(_("The section {source} is withdrawn, with all its routes.").format(source=source))


def _publisher(item: Section) -> str:
    if item.gateway is not None:
        return _("at the gateway {name}").format(name=item.gateway)
    return _("by a program") if item.published else _("by Mooring")


_SECTION = [
    Column[Section](_("SOURCE"), lambda item: item.source),
    Column[Section](_("RANK"), lambda item: str(item.rank), right=True),
    Column[Section](_("ROUTES"), lambda item: str(item.routes), right=True),
    Column[Section](
        _("LOST"), lambda item: str(item.lost), right=True, style=lambda item: "yellow" if item.lost else ""
    ),
    Column[Section](_("PUBLISHED"), _publisher),
]


def _read(file: Path) -> dict[str, Any]:
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInput(f"{file}:{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file}: {error}") from error
    except RecursionError as error:
        raise InvalidInput(_("{file}: must not be nested so deep").format(file=file)) from error
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise InvalidInput(_("{file}: must be a mapping with routes: […]").format(file=file), field="routes")
    return given


def _names(api: Api) -> dict[str, str]:
    """What people call their workspaces, by id."""
    return {item.id: f"{item.owner}/{item.name}" for item in api.pages("workspaces", Workspace)}


def _target(item: RouteEntry, whose: Mapping[str, str]) -> str:
    if item.lost_to is not None:
        return _("lost to {source}/{name}").format(source=item.lost_to.source, name=item.lost_to.name)
    route = item.route
    if route["state"] != RouteState.serving:
        return f"({route['state']})"
    if (redirect := route["filters"]["redirect"]) is not None:
        return _("redirect {status}").format(status=redirect["status"])
    backends = route["backends"]
    if not backends:
        # They are shown to administrators only.
        return ""
    more = f" +{len(backends) - 1}" if len(backends) > 1 else ""
    return _backend(Backend.model_validate(backends[0]), whose, route["workspace"]) + more


def _backend(backend: Backend, whose: Mapping[str, str], workspace: str | None) -> str:
    if backend.listener_of is not None:
        return _("port of {workspace}").format(workspace=whose.get(backend.listener_of, backend.listener_of))
    if backend.unix is not None and workspace is not None:
        # The folders of its socket say nothing to a person, and are longer than a line.
        return _("editor of {workspace}").format(workspace=whose.get(workspace, workspace))
    return backend.address or backend.files or f"unix:{backend.unix}"


def _source(item: RouteEntry) -> str:
    return item.source if item.gateway is None else f"{item.source} ({item.gateway})"


def _access(item: RouteEntry) -> str:
    access = Access.model_validate(item.route["access"])
    return ", ".join(access.subjects) if access.kind == "subjects" else access.kind
