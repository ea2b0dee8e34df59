"""`mooring status`: whether the server is ready, what it no longer sees, and what runs."""

from collections import Counter

import typer

from mooring.api.http.schemas import Watch, Workspace
from mooring.cli.client import connect
from mooring.cli.language import _
from mooring.cli.output import Format, Output, emit, note
from mooring.model.shown import span


def status(*, output: Output = Format.table) -> None:
    """Say what runs, what is stale and what is wrong; ends with 1 when the server is not ready."""
    with connect() as api:
        health = api.health()
        phases = Counter(workspace.phase for workspace in api.pages("workspaces", Workspace))
        url = api.endpoint.url
    count = ", ".join(f"{number} {phase}" for phase, number in sorted(phases.items())) or _("none")
    state = _("ready") if health.ready else _("not ready")
    emit(
        [
            {"what": _("server"), "state": state, "detail": url},
            {"what": _("workspaces"), "state": "", "detail": count},
            *(
                {"what": watch.name, "state": _("ok") if watch.ok else _("stale"), "detail": _age(watch)}
                for watch in health.watches
            ),
            *({"what": _("problem"), "state": _("wrong"), "detail": problem} for problem in health.problems),
        ],
        output,
    )
    if not health.ready:
        note(_("mooring doctor says what to do."))
        raise typer.Exit(1)


def _age(watch: Watch) -> str:
    if watch.age_s is None:
        return _("never heard of")
    limit = "" if watch.ok else _("; stale after {most}").format(most=span(watch.most_s))
    return _("heard of {span} ago").format(span=span(watch.age_s)) + limit
