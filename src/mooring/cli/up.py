"""`mooring up` and `mooring down`: Mooring on this machine."""

import ipaddress
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import Field, TypeAdapter, ValidationError

from mooring.cli.language import _
from mooring.cli.output import note
from mooring.errors import InvalidInput
from mooring.model.names import check_owner
from mooring.model.routes import Access
from mooring.settings import FileSource, Installation, Listen, RedisSource, cache, docker_host, first_person, home

_HOME = typer.Option("--home", metavar="FOLDER", help=_("Where all state is kept (MOORING_HOME)."))
_MAX_PORT = 65535
_DATABASES = ("postgresql", "postgres", "sqlite")
_REDISES = ("redis://", "rediss://", "unix://")
# The names of workspaces are made below it (62 characters and a dot), and a name has at most 253 (RFC 1035). An address
# has no names below it: its last label would be a number.
DomainName = Annotated[
    str,
    Field(max_length=190, pattern=r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$"),
]
_TRUST = _("""The certificate is of a local authority. To have it trusted, once:
  this machine  sudo cp {path} /usr/local/share/ca-certificates/mooring.crt && sudo update-ca-certificates
  Chromium      certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n mooring -i {path}
  Firefox       Settings, Privacy, View Certificates, Authorities, Import""")


def up(  # noqa: PLR0913 - one parameter a command line option
    *,
    bind: Annotated[
        str, typer.Option(metavar="ADDRESS", help=_("Address to listen on; 0.0.0.0 opens it to the network."))
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help=_("Port of everything."), min=1, max=_MAX_PORT)] = 8080,
    domain: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=_("Domain that workspaces get names below (localhost)."), show_default=False),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help=_("Serve HTTPS; makes a local authority by default."))] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("Certificate chain, PEM."), exists=True)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help=_("Its key, PEM."), exists=True)] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help=_("As root: the user that runs everything (mooring)."))
    ] = None,
    home_: Annotated[Path | None, _HOME] = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", envvar="MOORING_DATABASE", help=_("postgresql:// URL."))
    ] = None,
    database_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("File with that URL, for one with a password."))
    ] = None,
    routes_file: Annotated[Path | None, typer.Option(metavar="FILE", help=_("YAML file of routes, watched."))] = None,
    redis: Annotated[
        str | None, typer.Option(metavar="URL", envvar="MOORING_REDIS", help=_("redis:// URL of a hash of hosts."))
    ] = None,
    redis_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("File with that URL, for one with a password."))
    ] = None,
    redis_hash: Annotated[str, typer.Option(metavar="NAME", help=_("Name of that hash."))] = "hosts",
    redis_access: Annotated[
        str,
        typer.Option(metavar="WHO", help=_("Who may enter its routes: public, authenticated, or users: maria,joe.")),
    ] = "authenticated",
    redis_strip_prefix: Annotated[
        bool, typer.Option("--redis-strip-prefix", help=_("Take /ws/FIELD off the path that its backends see."))
    ] = False,
    workers: Annotated[int, typer.Option(metavar="N", help=_("nginx worker processes."), min=1, max=256)] = 2,
    replace: Annotated[
        bool, typer.Option("--replace", help=_("End the Mooring that runs here first, and let its workspaces run on."))
    ] = False,
) -> None:
    """Start Mooring on this machine, in the foreground. Ctrl-C stops all of it; workspaces keep their files."""
    if (tls_certificate is None) != (tls_key is None):
        raise InvalidInput(_("--tls-certificate and --tls-key go together"), field="--tls-key")
    secure = tls or tls_key is not None
    # No browser takes a certificate for *.localhost, which is a wildcard below a top-level domain.
    domain = _name(domain or ("mooring.localhost" if secure else "localhost"))
    database = _url(database, database_file, "--database", _DATABASES)
    redis = _url(redis, redis_file, "--redis", _REDISES)
    listen = Listen(_address(bind), port, domain, _absolute(tls_certificate), _absolute(tls_key), secure)
    installation = Installation(
        home=home(home_),
        listen=listen,
        editor=cache() / "editor/bin/code-server",
        database_url=database,
        docker_host=docker_host(),
        workers=workers,
        owner=first_person(),
        routes_file=FileSource(routes_file.absolute()).path if routes_file else None,
        redis=RedisSource(
            paths_host=f"ws.{domain}",
            url=redis,
            hash=redis_hash,
            strip_prefix=redis_strip_prefix,
            access=_access(redis_access),
        )
        if redis
        else None,
    )
    if secure and tls_key is None:
        note(_TRUST.format(path=installation.home.authority))
    if bind not in {"127.0.0.1", "::1"} and domain.endswith("localhost"):
        note(_("Other machines reach {bind} only with --domain: *.localhost is each machine's own.").format(bind=bind))
    if bind not in {"127.0.0.1", "::1"} and not secure:
        note(
            _("Without --tls, sign-ins can be read on the network, and editors there lack previews and the clipboard.")
        )
    # Only this command needs the server's parts.
    from mooring.server.embedded import up as run  # noqa: PLC0415

    run(installation, user, _announce, replacing=replace)


def _url(given: str | None, file: Path | None, option: str, schemes: tuple[str, ...]) -> str | None:
    """The URL of an option or of its file. It may hold a password: no message repeats it."""
    field = option
    if file is not None:
        field = f"{option}-file"
        if given is not None:
            raise InvalidInput(_("{option} and {field} say the same").format(option=option, field=field), field=field)
        try:
            given = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or _("must be UTF-8")
            raise InvalidInput(f"{field}: {file}: {why}", field=field) from error
    if given is None:
        return None
    if not given.startswith(schemes) or not given.isprintable():
        raise InvalidInput(
            _("{field} must be a URL that begins with one of {schemes}").format(
                field=field, schemes=", ".join(schemes)
            ),
            field=field,
        )
    if any(argument.endswith(given) for argument in sys.argv) and urlsplit(given).password:
        note(_("Everybody on this machine can read the password in {option}: use {option}-file.").format(option=option))
    return given


def _name(text: str) -> str:
    try:
        return TypeAdapter(DomainName).validate_python(text.lower().removesuffix("."))
    except ValidationError:
        raise InvalidInput(
            _("--domain must be a host name, such as dev.example.org or 192.0.2.7.nip.io, at most 190 characters"),
            field="--domain",
        ) from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidInput(
            _("--bind must be an IP address: 127.0.0.1, 0.0.0.0 or one of this machine's"), field="--bind"
        ) from None


def _access(text: str) -> Access:
    if text in {"public", "authenticated"}:
        return Access(kind="public" if text == "public" else "authenticated")
    users = tuple(check_owner(name.strip(), field="--redis-access") for name in text.split(","))
    return Access(kind="subjects", subjects=users)


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def _announce(url: str) -> None:
    sys.stdout.write(_("Mooring is ready: {url}").format(url=url) + "\n")
    sys.stdout.flush()


def down(*, home_: Annotated[Path | None, _HOME] = None) -> None:
    """Stop the Mooring that runs here, and its workspaces; their files and what was wanted of them stay."""
    from mooring.server.embedded import down as stop  # noqa: PLC0415

    note(_("Stopped.") if stop(home(home_)) else _("Mooring does not run here."))
