"""A workspace as a person reads it."""

from collections.abc import Sequence

from mooring.api.http.schemas import NOT_LIMITED, Event, Workspace
from mooring.cli.language import _
from mooring.cli.output import Column, Format, ago, moment, note, record, row, rows, until
from mooring.cli.plain import clean, indented
from mooring.model.workspace import Desired, Phase

STYLES = {
    Phase.running: "green",
    Phase.failed: "bold red",
    Phase.starting: "yellow",
    Phase.pending: "yellow",
    Phase.stopping: "yellow",
    Phase.stopped: "dim",
}


def listed(items: Sequence[Workspace], form: Format) -> None:
    """A table of workspaces; the owner only where there are several."""
    columns = _columns(several_owners=len({item.owner for item in items}) > 1)
    rows(items, columns, form, empty=_("No workspaces yet. Make one: mooring workspace create NAME"))
    _note_problems(items, form)


def line(item: Workspace, form: Format) -> None:
    """What was done to one workspace, as its line of the list."""
    row(item, _columns(several_owners=False), form)
    _note_problems([item], form)


def shown(item: Workspace, form: Format) -> None:
    """Everything about one workspace."""
    fields = {
        _("Name"): item.name,
        _("Owner"): item.owner,
        _("Id"): item.id,
        _("Phase"): state(item) + (f": {item.reason}" if item.reason and not _problem(item) else ""),
        _("Problem"): _problem(item),
        _("URL"): item.url,
        _("Ports"): item.port_url,
        _("By path"): item.path_url,
        _("Template"): _template(item),
        _("Repository"): item.repository or "",
        _("Restart"): _restart(item),
        _("Created"): moment(item.created_at),
        _("Started"): moment(item.started_at),
        _("Idle"): _idle(item),
        _("Limits"): _limits(item),
        _("Environment"): "\n".join(f"{name}={value}" for name, value in item.environment.items()),
    }
    record(item, fields, form)


def event_line(event: Event, names: dict[str, str] | None = None) -> str:
    """One line of history; with `names` (id to name) it says whose."""
    whose = ""
    if names is not None:
        longest = max(map(len, names.values()), default=0)
        whose = f"  {clean(names.get(event.workspace, event.workspace)):<{longest}}"
    return f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}{whose}  {indented(event.text)}"


def state(item: Workspace) -> str:
    """The phase; what was just asked for shows before the server has begun with it."""
    if item.desired is Desired.deleted:
        return _("deleting")
    if item.desired is Desired.stopped and item.phase in (Phase.pending, Phase.starting, Phase.running):
        return str(Phase.stopping)
    if item.phase is Phase.running and item.started_at is None:
        return _("restarting")
    return str(item.phase)


def _columns(*, several_owners: bool) -> list[Column[Workspace]]:
    owner = [Column[Workspace](_("OWNER"), lambda item: item.owner, rank=2)]
    return [
        Column[Workspace](_("NAME"), lambda item: item.name),
        Column[Workspace](_("PHASE"), state, style=lambda item: STYLES[item.phase]),
        *(owner if several_owners else ()),
        Column[Workspace](_("TEMPLATE"), lambda item: item.template, rank=3),
        Column[Workspace](_("UP"), _up, rank=4, right=True),
        Column[Workspace](_("STOPS IN"), _stops_in, rank=5, right=True),
        Column[Workspace](_("URL"), lambda item: item.url, rank=1),
    ]


def _note_problems(items: Sequence[Workspace], form: Format) -> None:
    for item in items:
        if form is Format.table and (problem := _problem(item)):
            note(indented(f"{item.name}: {problem}"))


def _problem(item: Workspace) -> str:
    """What went wrong beside an editor that runs."""
    return item.reason if state(item) == Phase.running else ""


def _up(item: Workspace) -> str:
    return ago(item.started_at) if item.phase is Phase.running else ""


def _stops_in(item: Workspace) -> str:
    stops = item.idle_status.stops_at
    return until(stops) if stops is not None and state(item) == Phase.running else ""


def _template(item: Workspace) -> str:
    newer = item.newer_template_version
    hint = _(" (version {newer}: mooring workspace upgrade {name})").format(newer=newer, name=item.name)
    return _("{template}, version {version}").format(template=item.template, version=item.template_version) + (
        hint if newer else ""
    )


def _restart(item: Workspace) -> str:
    if not item.restart_needed:
        return ""
    return _("needed by what was changed: mooring workspace restart {name}").format(name=item.name)


def _idle(item: Workspace) -> str:
    status = item.idle_status
    if status.stops_at is None:
        return status.why
    return _("stops {moment}: {why}").format(moment=moment(status.stops_at), why=status.why)


def _limits(item: Workspace) -> str:
    """A line a limit that was asked for; while it runs, one that cannot be enforced here says so."""
    asked = {name: value for name, value in item.limits.model_dump().items() if value is not None}
    force = item.limits_in_force.model_dump()
    # Of one that was only just asked for nobody knows yet.
    settled = item.phase is Phase.running and not item.restart_needed
    missing = {name for name in asked if settled and force[name] == NOT_LIMITED}
    lines = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in asked.items()]
    return "\n".join(
        line + (_(" (not limited here)") if name in missing else "") for name, line in zip(asked, lines, strict=True)
    )
