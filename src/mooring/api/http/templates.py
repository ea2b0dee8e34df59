"""`/templates`: what workspaces are made from."""

from typing import Annotated

from fastapi import APIRouter, Query

from mooring.api.http.auth import Calling, Wired
from mooring.api.http.problem import problems
from mooring.api.http.schemas import TemplatePage, TemplateSummary
from mooring.model.template import Template

router = APIRouter(prefix="/templates", tags=["templates"], responses=problems(401, 503))


@router.get("")
async def page(caller: Calling, services: Wired) -> TemplatePage:
    """The newest version of each template, and what is wrong with files that are none."""
    catalogue = services.workspaces.templates
    items = [
        TemplateSummary(name=t.name, version=t.version, description=t.description, runtime=t.runtime)
        for t in await catalogue.newest()
    ]
    # File names are the operator's: a member sees templates only.
    mistakes = [str(mistake) for mistake in await catalogue.mistakes()] if caller.admin else []
    return TemplatePage(items=tuple(items), mistakes=tuple(mistakes))


@router.get("/{name}", responses=problems(404, 422))
async def show(
    caller: Calling,  # noqa: ARG001 - no template is shown without a credential
    services: Wired,
    name: str,
    version: Annotated[int | None, Query(ge=1, le=1_000_000)] = None,
) -> Template:
    """A template: its newest version, or the one asked for."""
    return await services.workspaces.templates.get(name, version)
