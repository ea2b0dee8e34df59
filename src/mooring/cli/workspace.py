"""`mooring workspace`: make, see and change workspaces. What uses a running one stands in `workspace_use`."""

from typing import Annotated
from urllib.parse import quote

import typer

from mooring.api.http.schemas import KeepAwake, TemplateMove, Workspace
from mooring.cli import workspace_use
from mooring.cli.application import noun
from mooring.cli.client import connect, document
from mooring.cli.completion import WorkspaceName, templates, users
from mooring.cli.language import _
from mooring.cli.output import Format, Output, confirm, duration, note
from mooring.cli.progress import Timeout, Wait, newest_event, until_gone, until_running, until_stopped
from mooring.cli.workspace_view import line, listed, shown
from mooring.errors import InvalidInput
from mooring.model.names import check_name
from mooring.model.template import Template
from mooring.model.workspace import IdleRule, Limits
from mooring.workspaces.requests import Change, NewWorkspace

app = noun(_("Create, start, stop and use workspaces."))

START_S = 300
STOP_S = 60

Cpu = Annotated[str | None, typer.Option("--cpu", metavar="CORES", help=_("Limit: cores, like 1.5; none: no limit."))]
Memory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help=_("Limit: like 2Gi; none: no limit."))]
Pids = Annotated[str | None, typer.Option("--pids", metavar="N", help=_("Limit: processes; none: no limit."))]
Environment = Annotated[
    list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help=_("Environment variable; may be repeated."))
]
IdleAfter = Annotated[
    str | None, typer.Option("--idle-after", metavar="TIME", help=_("Stop when idle for so long (30m); never: do not."))
]


@app.command(help=_("Make a workspace and start it."))
def create(  # noqa: PLR0913 - one parameter a command line option
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("2 to 32 lower-case letters, digits and hyphens."))],
    *,
    template: Annotated[
        str,
        typer.Option("--template", "-t", metavar="TEMPLATE", help=_("What it is made from."), autocompletion=templates),
    ] = "code-server",
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="URL", help=_("Git repository to clone (https)."))
    ] = None,
    cpu: Cpu = None,
    memory: Memory = None,
    pids: Pids = None,
    env: Environment = None,
    idle_after: IdleAfter = None,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="USER", help=_("For somebody else (administrators)."), autocompletion=users),
    ] = None,
    start: Annotated[bool, typer.Option("--start/--no-start", help=_("Start it at once."), show_default=False)] = True,
    wait: Wait = False,
    timeout: Timeout = START_S,
    output: Output = Format.table,
) -> None:
    """Make a workspace."""
    check_name(name)
    given: dict[str, object] = {"environment": _environment(env or []) or None}
    with connect() as api:
        if (cpu, memory, pids, idle_after) != (None, None, None, None):
            # The server takes limits and rule as a whole: what is not named here must stay the template's.
            base = api.get(f"templates/{quote(template, safe='')}", Template)
            given |= {"limits": _limits(base.limits, cpu, memory, pids), "idle": _idle(base.idle, idle_after)}
        body = document(NewWorkspace, name=name, template=template, owner=owner, repository=repo, start=start, **given)
        made = api.post("workspaces", Workspace, body)
        if wait and start:
            made = until_running(api, made, after=0, timeout_s=timeout)
    shown(made, output)


@app.command("list", help=_("List workspaces."))
def list_(
    *,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="USER", help=_("Only this user's (administrators)."), autocompletion=users),
    ] = None,
    output: Output = Format.table,
) -> None:
    """List workspaces, those of a user together."""
    with connect() as api:
        found = list(api.pages("workspaces", Workspace, owner=owner))
    listed(sorted(found, key=lambda item: (item.owner, item.name)), output)


@app.command(help=_("Show everything about a workspace."))
def show(name: WorkspaceName, *, output: Output = Format.table) -> None:
    """Show one workspace."""
    with connect() as api:
        shown(api.workspace(name), output)


@app.command(help=_("Start a workspace."))
def start(
    name: WorkspaceName, *, wait: Wait = False, timeout: Timeout = START_S, output: Output = Format.table
) -> None:
    """Start one workspace."""
    _begin(name, "start", output, timeout if wait else 0)


@app.command(help=_("Stop and start a workspace."))
def restart(
    name: WorkspaceName, *, wait: Wait = False, timeout: Timeout = START_S, output: Output = Format.table
) -> None:
    """Restart one workspace."""
    _begin(name, "restart", output, timeout if wait else 0)


@app.command(help=_("Stop a workspace; its files stay."))
def stop(name: WorkspaceName, *, wait: Wait = False, timeout: Timeout = STOP_S, output: Output = Format.table) -> None:
    """Stop one workspace."""
    with connect() as api:
        found = api.workspace(name)
        after = newest_event(api, found) if wait else 0
        found = api.post(f"workspaces/{found.id}/stop", Workspace)
        if wait:
            found = until_stopped(api, found, after=after, timeout_s=timeout)
    line(found, output)


@app.command(help=_("Delete a workspace and its files."))
def delete(
    name: WorkspaceName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=_("Do not ask."))] = False,
    wait: Wait = False,
    timeout: Timeout = STOP_S,
) -> None:
    """Delete one workspace."""
    with connect() as api:
        found = api.workspace(name)
        if not yes:
            confirm(_("Delete {owner}/{name} and all its files?").format(owner=found.owner, name=found.name))
        after = newest_event(api, found) if wait else 0
        api.delete(f"workspaces/{found.id}")
        if wait:
            until_gone(api, found, after=after, timeout_s=timeout)
    done = _("{owner}/{name} and its files are deleted.") if wait else _("{owner}/{name} is being deleted.")
    note(done.format(owner=found.owner, name=found.name))


@app.command(help=_("Give a workspace another name, and so another URL."))
def rename(
    name: WorkspaceName,
    new: Annotated[str, typer.Argument(metavar="NEW", help=_("The new name."))],
    *,
    output: Output = Format.table,
) -> None:
    """Rename one workspace."""
    check_name(new)
    with connect() as api:
        found = api.workspace(name)
        line(api.patch(f"workspaces/{found.id}", Workspace, document(Change, name=new)), output)


@app.command("set", help=_("Change limits, environment or idle rule."))
def set_(  # noqa: PLR0913 - one parameter a command line option
    name: WorkspaceName,
    *,
    cpu: Cpu = None,
    memory: Memory = None,
    pids: Pids = None,
    env: Environment = None,
    unset_env: Annotated[
        list[str] | None, typer.Option("--unset-env", metavar="KEY", help=_("Remove a variable; may be repeated."))
    ] = None,
    idle_after: IdleAfter = None,
    output: Output = Format.table,
) -> None:
    """Change one workspace. What is not named stays; a change that somebody else makes meanwhile is not undone."""
    if all(value is None for value in (cpu, memory, pids, env, unset_env, idle_after)):
        raise InvalidInput(_("say what to change (see: mooring workspace set --help)"))
    with connect() as api:
        found = api.workspace(name)
        environment = None
        if env or unset_env:
            kept = {key: value for key, value in found.environment.items() if key not in (unset_env or [])}
            environment = kept | _environment(env or [])
        limits = _limits(found.limits, cpu, memory, pids)
        body = document(Change, limits=limits, environment=environment, idle=_idle(found.idle, idle_after))
        changed = api.patch(f"workspaces/{found.id}", Workspace, body, revision=found.revision)
    if changed.restart_needed:
        note(_("Limits and environment hold from the next start: mooring workspace restart {name}").format(name=name))
    shown(changed, output)


@app.command(help=_("Move a workspace to a newer version of its template."))
def upgrade(
    name: WorkspaceName,
    *,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", help=_("This version instead of the newest."), min=1)
    ] = None,
    output: Output = Format.table,
) -> None:
    """Move one workspace; it holds from its next start."""
    with connect() as api:
        found = api.workspace(name)
        moved = api.post(f"workspaces/{found.id}/template", Workspace, document(TemplateMove, version=version))
    if moved.template_version == found.template_version:
        text = _("{name} has version {version} of its template already.")
        note(text.format(name=name, version=found.template_version))
    elif moved.restart_needed:
        note(_("It holds from the next start: mooring workspace restart {name}").format(name=name))
    shown(moved, output)


@app.command("keep-awake", help=_("Do not stop a workspace for idleness for a while."))
def keep_awake(
    name: WorkspaceName,
    *,
    time: Annotated[str, typer.Option("--for", metavar="TIME", help=_("For so long, like 2h; at most 7d."))] = "1h",
    off: Annotated[bool, typer.Option("--off", help=_("The idle rule holds again."))] = False,
    output: Output = Format.table,
) -> None:
    """Suspend the idle rule of one workspace."""
    body = document(KeepAwake, for_s=0 if off else duration(time, field="--for", most="7d"))
    with connect() as api:
        found = api.workspace(name)
        shown(api.post(f"workspaces/{found.id}/keep-awake", Workspace, body), output)


workspace_use.register(app)


def _begin(name: str, verb: str, output: Format, wait_s: int) -> None:
    with connect() as api:
        found = api.workspace(name)
        after = newest_event(api, found) if wait_s else 0
        found = api.post(f"workspaces/{found.id}/{verb}", Workspace)
        if wait_s:
            found = until_running(api, found, after=after, timeout_s=wait_s)
    line(found, output)


def _limits(before: Limits, cpu: str | None, memory: str | None, pids: str | None) -> Limits | None:
    """The limits with those that were named; None when none was."""
    given = {"cpu": _number(cpu, float), "memory": memory, "pids": _number(pids, int)}
    changed = {key: None if value == "none" else value for key, value in given.items() if value is not None}
    return document(Limits, **(before.model_dump() | changed)) if changed else None


def _number(text: str | None, kind: type[int] | type[float]) -> float | str | None:
    """The number that the text is, for the document; any other text as it is, of which the document says why not."""
    try:
        return None if text is None else kind(text)
    except ValueError:
        return text


def _idle(before: IdleRule, after: str | None) -> IdleRule | None:
    if after is None:
        return None
    seconds = 0 if after == "never" else duration(after, field="--idle-after")
    return document(IdleRule, **(before.model_dump() | {"after_s": seconds}))


def _environment(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    for name, equals, _value in pairs:
        if not equals or not name:
            # Without the value, which may be a secret.
            text = repr(f"{name}=…" if equals else name)
            raise InvalidInput(_("--env must be KEY=VALUE, not {text}").format(text=text), field="--env")
    return {name: value for name, _equals, value in pairs}
