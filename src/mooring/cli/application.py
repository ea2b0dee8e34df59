"""How every application of the command line looks: plain help (Rich's costs 100 ms at each start), `-h` too."""

from typing import Any

import typer
from typer.core import TyperCommand

from mooring.cli.language import _

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Verb(TyperCommand):
    """A command whose help writes arguments as manual pages do: `NAME [USER]`. Typer's names their Python types.

    The contexts and parameters are of types that Typer keeps to itself.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        return [self.options_metavar or "", *map(written, self._arguments())]

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        if arguments := [(placeholder(argument), argument.help or "") for argument in self._arguments()]:
            with formatter.section(_("Arguments")):
                formatter.write_dl(arguments)
        records = (item.get_help_record(ctx) for item in self.get_params(ctx) if item.param_type_name == "option")
        with formatter.section(_("Options")):
            formatter.write_dl([record for record in records if record is not None])

    def _arguments(self) -> list[Any]:
        return [item for item in self.params if item.param_type_name == "argument"]


class Noun(typer.Typer):
    """An application whose commands are verbs."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] = Verb, **settings: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        return super().command(name, cls=cls, **settings)


def placeholder(argument: Any) -> str:  # noqa: ANN401
    """What stands for an argument's value."""
    return str(argument.metavar or argument.name.upper())


def written(argument: Any) -> str:  # noqa: ANN401
    """An argument as it is written in a command."""
    name = placeholder(argument) + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def noun(help: str) -> typer.Typer:  # noqa: A002 - Typer's own word
    """The application of a noun; its verbs are commands of it."""
    return Noun(help=help, no_args_is_help=True, rich_markup_mode=None, add_completion=False, context_settings=SETTINGS)


def single(name: str, help: str, function: Any) -> typer.Typer:  # noqa: A002, ANN401 - any signature
    """The application of one function, which is a command by itself."""
    app = Noun(rich_markup_mode=None, add_completion=False)
    app.command(name, help=help, context_settings=SETTINGS)(function)
    return app
