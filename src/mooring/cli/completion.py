"""Shell completion of names. It asks the server and stays silent about everything: a Tab must never print an error."""

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar
from urllib.parse import quote

import typer

from mooring.api.http.module_schemas import Module, ModuleDetail
from mooring.api.http.schemas import Me, Section, TemplateSummary, User, Workspace
from mooring.cli.client import Api, connect
from mooring.cli.language import _
from mooring.errors import MooringError

T = TypeVar("T")

PATIENCE_S = 1.0
"""Longer, and a person takes the shell for hung."""


def workspaces(incomplete: str) -> list[tuple[str, str]]:
    """One's own workspaces by name, those of others as `owner/name`."""
    found = _ask(_named)
    return [(name, phase) for name, phase in found if name.startswith(incomplete)]


def _named(api: Api) -> Iterable[tuple[str, str]]:
    mine = api.get("me", Me).name
    for item in api.pages("workspaces", Workspace):
        yield (item.name if item.owner == mine else f"{item.owner}/{item.name}"), str(item.phase)


def templates(incomplete: str) -> list[tuple[str, str]]:
    """Templates by name."""
    found = _ask(lambda api: api.pages("templates", TemplateSummary))
    return [(item.name, item.description) for item in found if item.name.startswith(incomplete)]


def users(incomplete: str) -> list[tuple[str, str]]:
    """Users by name."""
    found = _ask(lambda api: api.pages("users", User))
    return [(item.name, str(item.role)) for item in found if item.name.startswith(incomplete)]


def sources(incomplete: str) -> list[str]:
    """Sections that were published over the API."""
    found = _ask(lambda api: api.pages("routes/sections", Section))
    return [item.source for item in found if item.published and item.source.startswith(incomplete)]


def modules(incomplete: str) -> list[tuple[str, str]]:
    """Modules by path; behind an `@` the versions of that one."""
    module, at, version = incomplete.partition("@")
    if at:
        detail = _ask(lambda api: [api.get(f"modules/{quote(module)}", ModuleDetail)])
        versions = [item.version for found in detail for item in found.items]
        return [(f"{module}@{name}", "") for name in versions if name.startswith(version)]
    found = _ask(lambda api: api.pages("modules", Module, q=module or None))
    return [(item.module, item.newest) for item in found if item.module.startswith(module)]


def _ask(question: Callable[[Api], Iterable[T]]) -> list[T]:
    try:
        with connect(timeout_s=PATIENCE_S) as api:
            return list(question(api))
    except MooringError:
        return []


WorkspaceName = Annotated[
    str, typer.Argument(metavar="NAME", help=_("Name, owner/name or id of a workspace."), autocompletion=workspaces)
]
