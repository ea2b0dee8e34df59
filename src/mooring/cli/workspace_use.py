"""`mooring workspace`: what uses a workspace: its output and history, its URL, a command in it, ssh."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from mooring.api.http.schemas import Event, LogChunk, Me, Ticket, TicketCreate, Workspace
from mooring.cli.client import Api, connect, document
from mooring.cli.completion import WorkspaceName, workspaces
from mooring.cli.console import JustPrint, follow
from mooring.cli.language import _
from mooring.cli.output import Format, Output, stream, value
from mooring.cli.plain import screen
from mooring.cli.workspace_view import event_line
from mooring.model.names import MAX_PORT

Follow = Annotated[bool, typer.Option("--follow", "-f", help=_("Go on until Ctrl-C."))]
Port = Annotated[
    int | None, typer.Option("--port", "-p", min=1, max=MAX_PORT, metavar="PORT", help=_("Of a port of the workspace."))
]
ByPath = Annotated[bool, typer.Option("--by-path", help=_("The form that needs no wildcard name."))]


def register(app: typer.Typer) -> None:
    """Make these functions verbs of the noun."""
    app.command(help=_("Show the output of a workspace's editor."))(logs)
    app.command(help=_("Show what happened to a workspace, or to all."))(events)
    app.command(help=_("Print the URL of a workspace."))(url)
    app.command("open", help=_("Open a workspace in the browser, signed in."))(open_)
    app.command("exec", help=_("Run a command in a workspace; ends with its status."))(execute)
    app.command("ssh-config", help=_("Print what to add to ~/.ssh/config."))(ssh_config)


def logs(name: WorkspaceName, *, follow: Follow = False, output: Output = Format.table) -> None:
    """Show the output of one workspace."""
    with connect() as api:
        path = f"workspaces/{api.workspace(name).id}/logs"
        for sent in api.follow(path, {"follow": follow}, resume="offset"):
            chunk = LogChunk.model_validate_json(sent.data)
            if output is not Format.table:
                stream(chunk, "", output)
                continue
            sys.stdout.write(screen(chunk.text) if sys.stdout.isatty() else chunk.text)
            sys.stdout.flush()


def events(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=_("A workspace; all when absent."), autocompletion=workspaces)
    ] = None,
    *,
    follow: Follow = False,
    output: Output = Format.table,
) -> None:
    """Show the history of one workspace, or of all."""
    with connect() as api:
        path, names = "events", None
        if name is not None:
            path = f"workspaces/{api.workspace(name).id}/events"
        else:
            names = {item.id: item.name for item in api.pages("workspaces", Workspace)}
        for event in _followed(api, path) if follow else api.pages(path, Event):
            stream(event, event_line(event, names), output)


def _followed(api: Api, path: str) -> Iterator[Event]:
    for sent in api.follow(path, {"after": 0}, resume="after"):
        yield Event.model_validate_json(sent.data)


def url(name: WorkspaceName, *, port: Port = None, by_path: ByPath = False, output: Output = Format.table) -> None:
    """Print a URL of one workspace. Who opens it signs in first; `open` does that too."""
    with connect() as api:
        found = api.workspace(name)
    text = found.path_url if by_path else found.url
    if port is not None:
        text = f"{found.path_url}ports/{port}/" if by_path else found.port_url.replace("{port}", str(port))
    value("url", text, output)


def open_(
    name: WorkspaceName,
    *,
    port: Port = None,
    by_path: ByPath = False,
    just_print: JustPrint = False,
    output: Output = Format.table,
) -> None:
    """Open one workspace in the browser."""
    body = document(TicketCreate, port=port, path_form=by_path)
    with connect() as api:
        link = api.post(f"workspaces/{api.workspace(name).id}/ticket", Ticket, body).url
    follow(link, output, just_print=just_print)


def execute(
    name: WorkspaceName,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help=_("Put it behind --; a shell when absent."))
    ] = None,
    *,
    tty: Annotated[bool, typer.Option("--tty", "-t", help=_("With a terminal."))] = False,
) -> None:
    """Run a command in one workspace."""
    from mooring.cli.exec import SHELL, run  # noqa: PLC0415 - asyncio and WebSockets cost 100 ms

    with connect() as api:
        found = api.workspace(name)
        endpoint = api.endpoint
    raise typer.Exit(run(endpoint, found.id, command or SHELL, tty=tty))


def ssh_config(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=_("A workspace; all when absent."), autocompletion=workspaces)
    ] = None,
) -> None:
    """Print the entries of OpenSSH's configuration."""
    from mooring.cli.ssh import entries  # noqa: PLC0415 - see execute

    with connect() as api:
        if name is not None:
            found = [api.workspace(name)]
        else:
            # An administrator sees the workspaces of others, and enters none of them.
            found = list(api.pages("workspaces", Workspace, owner=api.get("me", Me).name))
        sys.stdout.write(entries(api, found, only=name is not None))
