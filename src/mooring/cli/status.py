"""`mooring status`: whether the server is ready, what it no longer sees, and what runs."""

from collections import Counter

import typer

from mooring.api.http.schemas import Watch, Workspace
from mooring.cli.client import Api, connect
from mooring.cli.language import _
from mooring.cli.output import Format, Output, emit, note
from mooring.errors import Unavailable
from mooring.model.shown import span

_WITHIN_S = 10.0
"""Several times what a server takes whose database is silent: nobody wants half a minute of nothing."""


def status(*, output: Output = Format.table) -> None:
    """Say what runs, what is stale and what is wrong; ends with 1 when not ready, or workspaces cannot be counted."""
    with connect(timeout_s=_WITHIN_S) as api:
        health = api.health()
        counted, workspaces = _workspaces(api)
        url = api.endpoint.url
    state = _("ready") if health.ready else _("not ready")
    emit(
        [
            {"what": _("server"), "state": state, "detail": url},
            {"what": _("workspaces"), "state": "" if counted else _("unknown"), "detail": workspaces},
            *({"what": watch.name, "state": _state(watch), "detail": _age(watch)} for watch in health.watches),
            *({"what": _("problem"), "state": _("wrong"), "detail": problem} for problem in health.problems),
        ],
        output,
    )
    if not (health.ready and counted):
        note(_("mooring doctor says what to do."))
        raise typer.Exit(1)


def _workspaces(api: Api) -> tuple[bool, str]:
    """How many there are, by phase; without a database why nobody knows, below which the rest is still to be shown."""
    try:
        phases = Counter(workspace.phase for workspace in api.pages("workspaces", Workspace))
    except Unavailable as error:
        return False, error.detail
    return True, ", ".join(f"{number} {phase}" for phase, number in sorted(phases.items())) or _("none")


def _state(watch: Watch) -> str:
    if watch.starting:
        return _("starting")
    return _("ok") if watch.ok else _("stale")


def _age(watch: Watch) -> str:
    if watch.age_s is None:
        return _("not heard of yet") if watch.starting else _("never heard of")
    limit = "" if watch.ok else _("; stale after {most}").format(most=span(watch.most_s))
    return _("heard of {span} ago").format(span=span(watch.age_s)) + limit
