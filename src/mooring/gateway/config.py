"""nginx.conf, rendered from settings alone: no route, no name and no text of a user ever comes here."""

import hashlib
import os
import pwd
import re
import resource
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mooring.errors import Misconfigured
from mooring.settings import Home

MODULES = Path("/usr/lib/nginx/modules")
TRUSTED_CA = Path("/etc/ssl/certs/ca-certificates.crt")
# Characters that end a quoted word in nginx's or Lua's syntax, or that name a variable there.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"'\\$;{}\[\]#]")


@dataclass(frozen=True, slots=True)
class Listener:
    """A public listening socket of nginx. `name` is what `Route.listener` says."""

    name: str
    address: str
    port: int
    tls: bool = False

    @property
    def text(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Modules:
    """Where nginx finds the module proxy's store and its role (`server/goproxy_role.py`)."""

    store: Path
    """Files by the protocol's names: `cache/download` of the proxy's folder."""
    role: Path
    """The socket for what the store does not answer."""
    policy: Path
    """What the role wrote down about who may have what; without it the role is asked about everything."""
    hits: Path
    """The datagram socket for what was served without the role."""

    @classmethod
    def of(cls, home: Home) -> "Modules":
        """The places of an installation."""
        return cls(home.modules / "cache/download", home.modules_socket, home.modules_policy, home.modules_hits)


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """What nginx.conf is made of."""

    home: Home
    console: str
    """The console's host name, without a port."""
    listeners: tuple[Listener, ...]
    workers: int = 2
    """Processes. Two carry what one machine's workspaces ask for; a gateway of many takes one a core."""
    table_bytes: int = 64 * 2**20
    """Shared memory for routes: 10,000 of them take about 8 MiB."""
    connections: int = 4096
    """A worker's; a proxied WebSocket takes two. Each costs 424 bytes whether it is used or not."""
    trusted_ca: Path = TRUSTED_CA
    """Whom https backends are verified against."""
    header_timeout_s: int = 15
    """How long a client may take to send its headers."""
    binary: Path = Path("/usr/sbin/nginx")
    modules: Modules | None = None
    """The Go module proxy below `/goproxy/` of the console's host; None: there is none."""
    modules_socket: Path | None = None
    """A unix socket that serves the module proxy, below `/goproxy/`, and nothing else."""
    modules_port: int | None = None
    """A port of 127.0.0.1 that serves the same in plain; its socket is handed to `Nginx` behind the listeners'."""

    @property
    def folder(self) -> Path:
        return self.home.gateway

    @property
    def gateway_token(self) -> Path:
        """The gateway's credential at the server, one line."""
        return self.home.keys / "gateway-token"


def lua_folder() -> Path:
    """Where the Lua sources are."""
    return Path(str(resources.files("mooring.gateway") / "lua"))


def pages_folder() -> Path:
    """Where the pages are that the gateway itself answers with."""
    return Path(str(resources.files("mooring.gateway") / "pages"))


def fingerprint(settings: NginxSettings) -> str:
    """A hash of everything that a running nginx was made from: adopting one of another hash would run old code."""
    digest = hashlib.sha256(render(settings).encode())
    for folder in (lua_folder(), pages_folder()):
        for path in sorted(folder.iterdir()):
            if path.is_file():
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def render(settings: NginxSettings) -> str:
    """The whole of nginx.conf.

    Raises:
        Misconfigured: when a path or name in the settings holds a character that nginx's syntax gives a meaning.
    """
    values = _values(settings)
    for field, value in values.items():
        if field != "user" and _UNSAFE.search(value):
            raise Misconfigured(
                f"{field} must hold no quote, backslash, $ ; [ ] {{ }} # or control character: {value!r}"
            )
    servers = "".join(_server(listener, settings) for listener in settings.listeners)
    return _fill(_read("nginx.conf"), values | {"servers": servers, "modules_proxy": _modules_proxy(settings)})


def _values(settings: NginxSettings) -> dict[str, str]:
    modules = settings.modules
    return {
        "folder": str(settings.folder),
        # A master of root would give its workers to another user, who cannot enter the home.
        "user": f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else "",
        "modules": str(MODULES),
        "lua": str(lua_folder()),
        "pages": str(pages_folder()),
        "admin_socket": str(settings.home.gateway_socket),
        "api_socket": str(settings.home.api_socket),
        "gateway_token": str(settings.gateway_token),
        "trusted_ca": str(settings.trusted_ca),
        "console": settings.console,
        "workers": str(settings.workers),
        "connections": str(settings.connections),
        "table_bytes": str(settings.table_bytes),
        "header_timeout_s": str(settings.header_timeout_s),
        "modules_store": str(modules.store) if modules else "",
        "modules_role": str(modules.role) if modules else "",
        "modules_policy": str(modules.policy) if modules else "",
        "modules_hits": str(modules.hits) if modules else "",
        "modules_socket": str(settings.modules_socket or ""),
        "files": str(min(4 * settings.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
    }


def _server(listener: Listener, settings: NginxSettings) -> str:
    values = {
        "listen": listener.text + (" ssl http2" if listener.tls else ""),
        "listener": listener.name,
        "is_https": str(listener.tls).lower(),
        "tls": _fill(_read("tls.conf"), {}) if listener.tls else "",
        "trusted_ca": str(settings.trusted_ca),
    }
    routed = _fill(_read("modules_routed.conf"), values) if settings.modules else ""
    return _fill(_read("server.conf"), values | {"modules": _modules(settings.modules, listener.name) + routed})


def _modules(modules: Modules | None, listener: str) -> str:
    values = {"modules_store": str(modules.store), "listener": listener} if modules else {}
    return _fill(_read("modules.conf"), values) if modules else ""


def _modules_proxy(settings: NginxSettings) -> str:
    if settings.modules is None:
        return ""
    own = ""
    if listens := _modules_listens(settings):
        # The listener's name is what `modules.lua` knows it by.
        values = {"listens": listens, "modules": _modules(settings.modules, "modules")}
        own = _fill(_read("modules_server.conf"), values)
    return _fill(_read("modules_http.conf"), {"modules_role": str(settings.modules.role), "modules_server": own})


def _modules_listens(settings: NginxSettings) -> str:
    found = [] if settings.modules_socket is None else [f'listen "unix:{settings.modules_socket}";']
    if settings.modules_port is not None:
        found.append(f"listen 127.0.0.1:{settings.modules_port};")
    return "\n        ".join(found)


def _read(name: str) -> str:
    return (resources.files("mooring.gateway") / "conf" / name).read_text()


def _fill(text: str, values: dict[str, str]) -> str:
    """Replace `@name@` in one pass, so that a value that looks like a placeholder stays what it is."""
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], text)
