"""`mooring goproxy`: a Go module proxy on its own, and work on its store."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mooring.cli import goproxy_view as view
from mooring.cli.application import noun
from mooring.cli.bar import Bar
from mooring.cli.language import _
from mooring.cli.output import Format, Output, value
from mooring.cli.pinned import Pinned, changed
from mooring.errors import Conflict, InvalidInput, NotFound
from mooring.goproxy import access
from mooring.goproxy.config import Config, size
from mooring.goproxy.s3 import Bucket
from mooring.settings import cache, go_command, home

if TYPE_CHECKING:
    from mooring.server.goproxy_jobs import Step

app = noun(_("Serve Go modules, public and private, verified and kept."))

Store = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help=_("Folder of the modules; otherwise that of mooring up, with its settings.")),
]
Upstream = Annotated[str | None, typer.Option(metavar="LIST", help=_("A GOPROXY list; otherwise what go env says."))]
Sumdb = Annotated[str | None, typer.Option(metavar="NAME", help=_("A GOSUMDB value; otherwise what go env says."))]
Nosumdb = Annotated[
    str, typer.Option(metavar="PATTERNS", help=_("Patterns that the checksum database is not asked about."))
]
Private = Annotated[
    str, typer.Option(metavar="PATTERNS", help=_("Patterns of modules that come from version control."))
]
Netrc = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("Passwords and tokens of repositories."), exists=True)
]
Gitconfig = Annotated[Path | None, typer.Option(metavar="FILE", help=_("Git settings such as insteadOf."), exists=True)]
SshKey = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("Private key for repositories over ssh."), exists=True)
]
KnownHosts = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("Keys of the hosts that ssh may believe."), exists=True)
]
Certificates = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("PEM bundle of a company's own authority."), exists=True)
]
Credential = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("File with the bucket's access key."), exists=True)
]
Certificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("PEM file with the certificate chain."), exists=True)
]
CertificateKey = Annotated[Path | None, typer.Option(metavar="FILE", help=_("PEM file with its key."), exists=True)]
Name = Annotated[
    str | None,
    typer.Option("--notary", metavar="NAME", help=_("Name of our own checksum database (sum.mooring.internal).")),
]
Go = Annotated[
    Path | None, typer.Option(metavar="FILE", help=_("The go command; otherwise the set-up's, or that of PATH."))
]


@app.callback()
def settings(  # noqa: PLR0913 - one parameter a command line option
    context: typer.Context,
    *,
    store: Store = None,
    upstream: Upstream = None,
    sumdb: Sumdb = None,
    nosumdb: Nosumdb = "",
    private: Private = "",
    netrc: Netrc = None,
    gitconfig: Gitconfig = None,
    ssh_key: SshKey = None,
    known_hosts: KnownHosts = None,
    certificates: Certificates = None,
    s3: Annotated[
        str | None, typer.Option(metavar="URL", help=_("Keep modules at https://HOST/BUCKET/PREFIX instead."))
    ] = None,
    s3_credentials: Credential = None,
    s3_region: Annotated[str, typer.Option(metavar="REGION", help=_("Region of the bucket."))] = "us-east-1",
    notary: Name = None,
    go: Go = None,
) -> None:
    """Serve Go modules, public and private, verified and kept."""
    from mooring.server.logs import errors_only  # noqa: PLC0415 - not for a page of help

    errors_only()
    if s3 and not s3_credentials:
        raise InvalidInput("a bucket needs a file of credentials", field="--s3-credentials")
    base = _base(store, go or go_command(cache() / "go"))
    files = replace(
        base.credentials,
        **_given(netrc=netrc, gitconfig=gitconfig, ssh_key=ssh_key, known_hosts=known_hosts, certificates=certificates),
    )
    context.obj = replace(
        base,
        credentials=files,
        **_given(
            s3=Bucket(s3, s3_credentials, s3_region) if s3 and s3_credentials else None,
            upstream=upstream,
            sumdb=sumdb,
            nosumdb=_patterns(nosumdb),
            private=_patterns(private),
            notary=notary,
        ),
    )


def _base(store: Path | None, go: Path) -> Config:
    """What holds where no option says otherwise."""
    if store is not None:
        return Config(root=store.absolute(), go=go)
    # The store of `mooring up`: without its private patterns their modules would be named to the public database.
    from mooring.goproxy import team  # noqa: PLC0415 - the file is read by these commands alone

    place = home()
    return team.read(place.modules_settings).config(place, go)


def _given(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - each is of its own type
    return {name: value for name, value in options.items() if value}


@app.command()
def serve(  # noqa: PLR0913 - one parameter a command line option
    context: typer.Context,
    *,
    bind: Annotated[str, typer.Option(metavar="ADDRESS", help=_("Address to listen on."))] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help=_("Port to listen on."), min=0, max=65535)] = 8081,
    filter_: Annotated[
        Path | None, typer.Option("--filter", metavar="FILE", help=_("Rules: which modules may be used."))
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help=_("Ask for a token; see the command token."))] = False,
    tls_certificate: Certificate = None,
    tls_key: CertificateKey = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help=_("Evict what can come back beyond this: 200G."))
    ] = None,
    max_clones: Annotated[
        str | None, typer.Option(metavar="SIZE", help=_("Keep clones of repositories up to this: 20G."))
    ] = None,
) -> None:
    """Serve in the foreground until Ctrl-C."""
    from mooring.server.goproxy import serve as run  # noqa: PLC0415 - the other commands need none of it

    if (tls_certificate is None) != (tls_key is None):
        raise InvalidInput("a certificate needs its key, and a key its certificate", field="--tls-key")
    base = _config(context)
    config = replace(
        base,
        filter=filter_ or base.filter,
        tokens=_tokens(base) if tokens else None,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        max_bytes=size(max_size) if max_size else base.max_bytes,
        limits=replace(base.limits, clones_bytes=size(max_clones)) if max_clones else base.limits,
    )
    run(config, bind, port, _told)


def _told(text: str) -> None:
    # Flushed: in a pipe the line would come at the end. A log that takes nothing is no reason not to serve.
    with suppress(OSError):
        typer.echo(text)


@app.command()
def verify(context: typer.Context, *, output: Output = Format.table) -> None:
    """Hash everything that is kept once more; say what is wrong."""
    done = asyncio.run(_verify(_config(context), output))
    view.verified(done, output)
    if done.wrong:
        raise Conflict(f"files that are wrong: {done.wrong}; remove them, and the next request fetches them again")


async def _verify(config: Config, output: Format) -> view.Verified:
    from mooring.goproxy.audit import audit  # noqa: PLC0415
    from mooring.server.goproxy import build  # noqa: PLC0415

    findings: list[view.Wrong] = []
    count = 0
    async with build(config) as goproxy:
        async for finding in audit(goproxy.store, goproxy.recorded):
            count += 1
            if finding.problem:
                findings.append(view.Wrong(file=finding.name, problem=finding.problem, unsure=finding.unsure))
                view.finding(findings[-1], output)
    unsure = sum(item.unsure for item in findings)
    right, wrong = count - len(findings), len(findings) - unsure
    return view.Verified(files=count, right=right, wrong=wrong, unsure=unsure, findings=tuple(findings))


@app.command()
def evict(
    context: typer.Context,
    max_size: Annotated[str, typer.Argument(metavar="SIZE", help=_("What the store may hold: 200G."))],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_("Only say what would go."))] = False,
    output: Output = Format.table,
) -> None:
    """Remove zips that were not read for long and can come back."""
    view.evicted(asyncio.run(_evict(_config(context), size(max_size), dry_run=dry_run)), output)


async def _evict(config: Config, max_bytes: int, *, dry_run: bool) -> view.Evicted:
    from mooring.server.goproxy import build  # noqa: PLC0415

    async with build(config) as goproxy:
        done = await goproxy.eviction.run(max_bytes, dry_run=dry_run)
    return view.Evicted(
        dry_run=dry_run,
        before=done.before,
        after=done.after,
        most=max_bytes,
        removed=tuple(view.Removed(version=item.ask.label, size=item.size) for item in done.evicted),
        kept=tuple(view.Reason(version=label, why=why) for label, why in done.kept.items()),
    )


@app.command()
def warm(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help=_("go.mod files."), exists=True, dir_okay=False)],
    *,
    output: Output = Format.table,
) -> None:
    """Fetch ahead what builds of go.mod files need."""
    from mooring.server.goproxy_jobs import warm as run  # noqa: PLC0415

    config = _config(context)
    _fetch(lambda: run(config, files), _("reading the module graph"), output)


@app.command(name="export")
def export_(
    context: typer.Context,
    to: Annotated[Path, typer.Argument(metavar="FILE", help=_("The tar file to write."))],
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="PATTERN", help=_("Patterns of modules; otherwise all."))
    ] = None,
    *,
    output: Output = Format.table,
) -> None:
    """Write what is kept into a tar file."""
    from mooring.server.goproxy_jobs import export  # noqa: PLC0415

    done = asyncio.run(export(_config(context), to, tuple(patterns or ())))
    view.exported(view.Export(file=to, files=done.files, unproved=done.unproved), output)


@app.command(name="import")
def import_(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help=_("An export, or a folder laid out as GOMODCACHE."), exists=True)
    ],
    *,
    output: Output = Format.table,
) -> None:
    """Take over an export or a module cache, verified."""
    from mooring.server.goproxy_jobs import import_ as run  # noqa: PLC0415

    config = _config(context)
    _fetch(lambda: run(config, source), _("reading what is to be imported"), output)


@app.command()
def key(context: typer.Context, *, output: Output = Format.table) -> None:
    """Show the key of our checksum database: the value for GOSUMDB."""
    from mooring.goproxy.ledger import Ledger  # noqa: PLC0415

    config = _config(context)
    value("key", Ledger(config.root / "notary", config.notary).signer.verifier.text, output)


@app.command()
def token(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("Who it is for."))],
    *,
    modules: Annotated[
        str, typer.Option(metavar="PATTERNS", help=_("Patterns of the private modules that they may have."))
    ] = "",
    output: Output = Format.table,
) -> None:
    """Make a token and show it, once."""
    private = _patterns(modules)
    made = access.make(_tokens(_config(context)), name, private)
    view.made(view.NewToken(name=name, modules=private, token=made), output)


@app.command()
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("Who it was for."))],
    *,
    output: Output = Format.table,
) -> None:
    """Remove somebody's tokens; they open nothing from then on."""
    count = access.revoke(_tokens(_config(context)), name)
    if not count:
        raise NotFound(f"{name} has no token")
    view.revoked(view.Revoked(name=name, tokens=count), output)


@app.command()
def pin(
    context: typer.Context,
    pattern: Annotated[str, typer.Argument(metavar="MODULE", help=_("MODULE or MODULE@VERSION."))],
    *,
    output: Output = Format.table,
) -> None:
    """Never evict a module."""
    from mooring.goproxy.pins import Pins  # noqa: PLC0415

    asyncio.run(Pins(_config(context).root / "pins").add(pattern))
    changed(Pinned.of(pattern, pinned=True), output)


@app.command()
def unpin(
    context: typer.Context,
    pattern: Annotated[str, typer.Argument(metavar="MODULE", help=_("As it was pinned."))],
    *,
    output: Output = Format.table,
) -> None:
    """Let a module be evicted again."""
    from mooring.goproxy.pins import Pins  # noqa: PLC0415

    asyncio.run(Pins(_config(context).root / "pins").remove(pattern))
    changed(Pinned.of(pattern, pinned=False), output)


def _fetch(run: "Callable[[], AsyncIterator[Step]]", begin: str, output: Format) -> None:
    done = asyncio.run(_steps(run, begin))
    view.fetched(done, output)
    if done.here < done.files:
        raise Conflict(_("{count} of the files could not be had").format(count=done.files - done.here))


async def _steps(run: "Callable[[], AsyncIterator[Step]]", begin: str) -> view.Fetched:
    """The first reason for each version of which files could not be had, and how many files are here."""
    problems: dict[str, str] = {}
    count = here = 0
    with Bar(begin) as bar:
        async for step in run():
            count = step.total
            bar.at(step.done, step.total, step.label)
            here += not step.problem
            if step.problem:
                problems.setdefault(step.label, step.problem)
    failed = tuple(view.Reason(version=label, why=why) for label, why in problems.items())
    return view.Fetched(files=count, here=here, failed=failed)


def _config(context: typer.Context) -> Config:
    if not isinstance(context.obj, Config):
        raise TypeError(context.obj)
    # `home()` asks for the user's name, which in a container need not have one.
    if os.geteuid() == 0 and context.obj.root == (place := home()).modules:
        from mooring.server.acting import act_as_owner  # noqa: PLC0415 - not for a page of help

        act_as_owner(place)
    return context.obj


def _tokens(config: Config) -> Path:
    return config.root / "tokens"


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)
