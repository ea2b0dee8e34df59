"""Where the server is, and with which token: the environment, then `config.toml`, then the Mooring of this machine.

A token never goes to another server than the one that it was written down for.
"""

import ipaddress
import json
import re
import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mooring.cli.language import _
from mooring.errors import Misconfigured, Unauthenticated, Unavailable
from mooring.settings import Home, Remote, home, remote

OTHERS_MAY_READ = 0o077
_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[1-9]\d{0,4})?/?")
_PORTS = {"http": 80, "https": 443}
_UNKNOWN_ISSUERS = {18, 19, 20, 21}
"""What OpenSSL's verify(1) says of a certificate whose authority is not among those that are trusted."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: the console's `url` without a path, the `address` to connect to, and whether it is this machine's."""

    url: str
    address: str
    port: int
    token: str
    authority: Path | None = None
    local: bool = False

    @property
    def host(self) -> str:
        """The console's host name, without the port."""
        return urlsplit(self.url).hostname or ""

    @property
    def netloc(self) -> str:
        """The value of the Host header."""
        return urlsplit(self.url).netloc

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def direct(self) -> bool:
        """Whether a proxy of the environment would be asked for an address that only this machine knows."""
        return self.local or self.address == "::1" or self.address.startswith("127.")

    def tls(self) -> ssl.SSLContext | None:
        """What TLS trusts: the system's authorities, or the one that is named; None for clear text.

        Raises:
            Misconfigured: that one is not to be had.
        """
        if self.scheme == "http":
            return None
        try:
            return ssl.create_default_context(cafile=self.authority)
        except ssl.SSLError as error:
            text = _("authority: there is no certificate in {path}").format(path=self.authority)
            raise Misconfigured(text, field="authority") from error
        except OSError as error:
            text = _("authority: cannot read {path}: {why}").format(path=self.authority, why=error.strerror)
            raise Misconfigured(text, field="authority") from error

    def silent(self, error: Exception) -> Unavailable:
        """The error of a server that does not answer, or whom nobody vouches for: says what to type."""
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self._untrusted(cause)
        strerror = cause.strerror if isinstance(cause, OSError) else None
        why = strerror.lower() if strerror else str(error) or type(error).__name__
        return self.unanswered(why, gone=isinstance(cause, ConnectionRefusedError))

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> Unavailable:
        text = _("the certificate of {url} is not trusted ({why})")
        text = text.format(url=self.url, why=error.verify_message.rstrip("."))
        if error.verify_code not in _UNKNOWN_ISSUERS:
            # It has expired, or is for another name: no other authority would help.
            return Unavailable(text + (_(". See: mooring doctor") if self.local else ""))
        if self.authority is None:
            hint = _("SSL_CERT_FILE names the file of its authority")
        elif self.local:
            hint = _("{authority} does not vouch for it. See: mooring doctor").format(authority=self.authority)
        else:
            hint = _("{authority} does not vouch for it; that of --tls is keys/tls/authority.crt in the home there")
            hint = hint.format(authority=self.authority)
        return Unavailable(f"{text}. {hint}")

    def unanswered(self, why: str, *, gone: bool = False) -> Unavailable:
        """The same for a reason that is no error's; `gone`: nobody listens there."""
        text = _("Mooring does not answer at {url} ({why}).").format(url=self.url, why=why)
        here = _("Start it: mooring up") if gone else _("See: mooring doctor")
        hint = here if self.local else _("Is it running, and is its address right?")
        return Unavailable(f"{text} {hint}")


def find() -> Endpoint:
    """The server to talk to.

    Raises:
        Misconfigured: a bad address or configuration file.
        Unavailable: nothing is configured, and no Mooring runs here.
        Unauthenticated: a server is known, and no token for it.
    """
    asked = remote()
    written = _written(asked.folder / "config.toml")
    if asked.url is None and "url" not in written:
        return _here(home(), asked)
    url = _checked(asked.url or written["url"], "MOORING_URL" if asked.url else "url")
    belongs = "url" in written and _checked(written["url"], "url") == url
    token = asked.token or (written.get("token") if belongs else None)
    if token is None:
        raise Unauthenticated(_("no token for {url}: set MOORING_TOKEN").format(url=url))
    authority = Path(written["authority"]).expanduser() if belongs and "authority" in written else None
    parts = urlsplit(url)
    host = parts.hostname or ""
    return Endpoint(url, _reachable(host), parts.port or _PORTS[parts.scheme], _sendable(token), authority)


def _written(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            document = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path}: {error}") from error
    for key, value in document.items():
        if key not in {"url", "token", "authority"} or not isinstance(value, str):
            raise Misconfigured(_("{path}: {key}: only url, token and authority, as text").format(path=path, key=key))
    if "token" in document and mode & OTHERS_MAY_READ:
        raise Misconfigured(_("{path} holds a token that others can read: chmod 600 {path}").format(path=path))
    return document


def _checked(url: str, field: str) -> str:
    if _URL.fullmatch(url) is None:
        raise Misconfigured(_("{field} must be like https://mooring.example.org").format(field=field), field=field)
    return url.rstrip("/")


def _sendable(token: str) -> str:
    # A header takes nothing else; the text is the server's about any other token that it cannot know.
    if not (token.isascii() and token.isprintable()):
        raise Unauthenticated(_("the token is not valid: those of Mooring begin with mrg_"))
    return token


def _reachable(host: str) -> str:
    # The C library does not resolve *.localhost, which browsers do (RFC 6761, 6.3).
    return "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host


def _here(place: Home, asked: Remote) -> Endpoint:
    document = _running(place)
    try:
        token = _sendable(asked.token or place.admin_token.read_text().strip())
    except OSError as error:
        raise Unauthenticated(
            _("cannot read {path}: {why}").format(path=place.admin_token, why=error.strerror)
        ) from error
    try:
        address = _loopback(document["address"])
        authority = Path(document["authority"]) if document.get("authority") else None
        return Endpoint(_checked(document["url"], "url"), address, int(document["port"]), token, authority, local=True)
    except (KeyError, TypeError, ValueError) as error:
        text = _("{path} is not what mooring up writes; start Mooring again")
        raise Misconfigured(text.format(path=place.run / "endpoint.json")) from error


def _running(place: Home) -> dict[str, Any]:
    path = place.run / "endpoint.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except PermissionError as error:
        raise Unauthenticated(_("only the user that runs Mooring may read {path}").format(path=path)) from error
    except FileNotFoundError as error:
        text = _("no Mooring runs here ({home}). Start it: mooring up; or name a server with MOORING_URL")
        raise Unavailable(text.format(home=place.root)) from error
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path}: {error}") from error
    return document


def _loopback(address: str) -> str:
    """Where a listener on every address is reached."""
    bound = ipaddress.ip_address(address)
    if not bound.is_unspecified:
        return address
    return "127.0.0.1" if isinstance(bound, ipaddress.IPv4Address) else "::1"
