"""The command `mooring`: its registration list, and how errors leave the process.

Nothing here imports a command's module before that command runs: `mooring --help` knows the names and one line each,
and a person's machine never loads a part of the server.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import Abort, TyperException

from mooring.cli import color
from mooring.cli.application import SETTINGS, single
from mooring.cli.language import _
from mooring.cli.plain import clean
from mooring.errors import InvalidInput, MooringError, outcome
from mooring.model.wording import plain

SERVER = _("This machine")
OBJECTS = _("Workspaces and what belongs to them")
INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Registration:
    """A command: `target` is `module:name` of a Typer application, or of a function that is a command by itself."""

    name: str
    target: str
    help: str
    panel: str = OBJECTS
    hidden: bool = False


# A new command is a line here.
REGISTRATIONS = (
    Registration("up", "mooring.cli.up:up", _("Start Mooring on this machine."), SERVER),
    Registration("down", "mooring.cli.up:down", _("Stop the Mooring that runs here."), SERVER),
    Registration("status", "mooring.cli.status:status", _("Say what runs and what is stale."), SERVER),
    Registration("doctor", "mooring.cli.doctor:doctor", _("Find what is missing or misconfigured."), SERVER),
    Registration("goproxy", "mooring.cli.goproxy:app", _("Serve Go modules, verified and kept."), SERVER),
    Registration("console", "mooring.cli.console:console", _("Open the console in the browser, signed in.")),
    Registration("workspace", "mooring.cli.workspace:app", _("Create, start, stop and use workspaces.")),
    Registration("ssh", "mooring.cli.ssh:ssh", _("Open a workspace with OpenSSH.")),
    Registration("ssh-proxy", "mooring.cli.ssh:ssh_proxy", _("Carry OpenSSH's bytes to a workspace."), hidden=True),
    Registration("template", "mooring.cli.template:app", _("See what workspaces are made from.")),
    Registration("route", "mooring.cli.route:app", _("See and publish routes of the gateway.")),
    Registration("module", "mooring.cli.module:app", _("See, pin and evict Go modules.")),
    Registration("user", "mooring.cli.user:app", _("Manage users and their tokens.")),
)


class Lazy(TyperGroup):
    """The root: shows its commands from the list, imports one when it is asked for.

    The contexts are of a type that Typer keeps to itself.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        return [item.name for item in REGISTRATIONS]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ANN401, ARG002
        item = _registered(cmd_name)
        if item is None:
            return None
        return TyperCommand(item.name, help=item.help, hidden=item.hidden)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        for panel in dict.fromkeys(item.panel for item in REGISTRATIONS):
            with formatter.section(panel):
                shown = [item for item in REGISTRATIONS if item.panel == panel and not item.hidden]
                formatter.write_dl([(item.name, item.help) for item in shown])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401
        # What a mistyped name is compared with.
        self.commands = {item.name: TyperCommand(item.name) for item in REGISTRATIONS if not item.hidden}
        name, command, rest = super().resolve_command(ctx, args)
        item = _registered(name) if name is not None else None
        return (name, load(item), rest) if item is not None else (name, command, rest)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            # Typer would return a status, with which a command in a workspace may have ended as well.
            raise Abort from error


def _registered(name: str) -> Registration | None:
    return next((item for item in REGISTRATIONS if item.name == name), None)


def load(item: Registration) -> Any:  # noqa: ANN401 - Typer's own command types are private
    """Import a command and make it one of Typer's."""
    module, _colon, name = item.target.partition(":")
    target = getattr(import_module(module), name)
    app = target if isinstance(target, typer.Typer) else single(item.name, item.help, target)
    command = typer.main.get_command(app)
    command.name = item.name
    return command


app = typer.Typer(
    name="mooring",
    cls=Lazy,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=SETTINGS,
    help=_("Browser workspaces behind a gateway that never reloads."),
)


def _version(asked: bool) -> None:  # noqa: FBT001 - the value of a flag
    if asked:
        from importlib import metadata  # noqa: PLC0415 - costs 25 ms, and no other command needs it

        sys.stdout.write(f"mooring {metadata.version('mooring')}\n")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[  # noqa: ARG001 - eager: its callback ends the command
        bool, typer.Option("--version", is_eager=True, callback=_version, help=_("Print the version."))
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help=_("No colours (also: NO_COLOR=1)."))] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help=_("Show where an error came from."))] = False,  # noqa: ARG001
) -> None:
    """Options before the command."""
    if no_color:
        color.off()


def main() -> None:
    """Run the command line and end the process with its status."""
    _open_what_is_closed()
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except (KeyboardInterrupt, Abort):
        status = INTERRUPTED
        if sys.stderr.isatty():
            # The shell's prompt would stand behind the ^C, or behind a question.
            sys.stderr.write("\n")
    except OSError as error:
        # What is left in the buffer would raise again when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _complain(_("nothing more can be written: {why}").format(why=error.strerror))
        status = 1
    sys.exit(status)


def _open_what_is_closed() -> None:
    """Give standard streams that the caller closed (`>&-`) to nobody: a socket would get their number, and the text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def run(arguments: Sequence[str]) -> int:
    """Run one command; what went wrong is one line on standard error. Returns the exit status.

    Raises:
        KeyboardInterrupt, Abort: the person interrupted us, or left a question.
        OSError: nobody takes the output, or the disk that it goes to is full.
    """
    try:
        result = typer.main.get_command(app).main(list(arguments), prog_name="mooring", standalone_mode=False)
    except MooringError as error:
        _complain(error.detail)
        status = outcome(error).exit
    except TyperException as error:
        status = _usage(error)
    except (BrokenPipeError, KeyboardInterrupt, Abort):
        raise
    except UnicodeEncodeError as error:
        status = _unwritable(error, arguments)
    except Exception as error:  # the last resort: a person gets a line, not a stack
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            # Of the output, which the command flushes or which is more than the buffer holds; or of a file of ours.
            raise
        status = _unexpected(error, arguments)
    else:
        status = result if isinstance(result, int) else 0
    return status


def _usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    text = plain(error.format_message().rstrip())
    if "\n" in text:
        # A group without a verb: the text is its help.
        sys.stderr.write(f"{text}\n")
    else:
        hint = _(" (see: {command} --help)").format(command=context.command_path) if context else ""
        _complain(text + hint)
    return error.exit_code


def _unexpected(error: Exception, arguments: Sequence[str]) -> int:
    if "--traceback" in arguments:
        traceback.print_exception(error)
    kind = type(error).__name__
    _complain(_("unexpected error: {kind}: {error} (mooring --traceback … shows where)").format(kind=kind, error=error))
    return outcome(MooringError("")).exit


def _unwritable(error: UnicodeEncodeError, arguments: Sequence[str]) -> int:
    if error.encoding != "utf-8":
        return _unexpected(error, arguments)
    # Bytes of an argument that are not UTF-8: no request can carry them.
    given = repr(error.object[error.start : error.end])
    _complain(_("text must be UTF-8, and {given} is not").format(given=given))
    return outcome(InvalidInput("")).exit


def _complain(text: str) -> None:
    sys.stderr.write(f"mooring: {clean(' '.join(text.split()))}\n")
