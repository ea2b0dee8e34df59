"""How every application of the command line looks: plain help (Rich's costs 100 ms at each start), `-h` too."""

from typing import Any

import typer

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def noun(help: str) -> typer.Typer:  # noqa: A002 - Typer's own word
    """The application of a noun; its verbs are commands of it."""
    return typer.Typer(
        help=help, no_args_is_help=True, rich_markup_mode=None, add_completion=False, context_settings=SETTINGS
    )


def single(name: str, help: str, function: Any) -> typer.Typer:  # noqa: A002, ANN401 - any signature
    """The application of one function, which is a command by itself."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name, help=help, context_settings=SETTINGS)(function)
    return app
