"""`mooring goproxy`: a Go module proxy on its own."""

from pathlib import Path
from typing import Annotated

import typer

from mooring.goproxy.config import Config
from mooring.settings import home

app = typer.Typer(no_args_is_help=True, help="A Go module proxy.")


@app.command()
def serve(  # noqa: PLR0913 - one parameter a command line option
    *,
    store: Annotated[Path | None, typer.Option(help="Folder of the modules; laid out as GOMODCACHE.")] = None,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=0, max=65535)] = 8081,
    upstream: Annotated[str | None, typer.Option(help="A GOPROXY list; otherwise what go env says.")] = None,
    sumdb: Annotated[str | None, typer.Option(help="A GOSUMDB value; otherwise what go env says.")] = None,
    nosumdb: Annotated[str, typer.Option(help="Patterns that the checksum database is not asked about.")] = "",
    private: Annotated[str, typer.Option(help="Patterns of modules that come from version control.")] = "",
) -> None:
    """Serve modules in the foreground."""
    from mooring.server.goproxy import serve as run  # noqa: PLC0415 - the other commands need none of it

    run(
        Config(
            root=store or home().root / "goproxy",
            upstream=upstream,
            sumdb=sumdb,
            nosumdb=_patterns(nosumdb),
            private=_patterns(private),
        ),
        bind,
        port,
        print,
    )


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)
