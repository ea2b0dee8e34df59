"""Settings: one frozen dataclass a part. The only reader of the environment and of the arguments' defaults."""

import hashlib
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from mooring.errors import InvalidInput, Misconfigured
from mooring.model.names import check_owner
from mooring.model.routes import Access

# A unix socket's path holds 108 bytes (unix(7)); the longest one below home is run/w/<id>/editor.sock.
LONGEST_SOCKET = len("/run/w/0123456789/editor.sock")
MAX_SOCKET_PATH = 107
AUTHORITY_CERTIFICATE = "authority.crt"
"""What a browser must trust, in the folder of the local authority."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything is kept; `root` is MOORING_HOME.

    Default: `/var/lib/mooring` as root, else `~/.local/share/mooring`. Folders that hold sockets are 0700.
    """

    root: Path

    @property
    def instance(self) -> str:
        """What marks the processes and containers of this installation: 16 hex digits of its folder."""
        return hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]

    @property
    def database(self) -> Path:
        return self.root / "mooring.db"

    @property
    def keys(self) -> Path:
        """Signing keys, the gateway's credential, the local certificate authority; 0700, files 0600."""
        return self.root / "keys"

    @property
    def tls(self) -> Path:
        """The local certificate authority of `--tls`, which lies there as `gateway/authority.py` has it."""
        return self.keys / "tls"

    @property
    def authority(self) -> Path:
        """Its certificate, which a browser must trust."""
        return self.tls / AUTHORITY_CERTIFICATE

    @property
    def admin_token(self) -> Path:
        """The administrator's bearer token, 0600, for the CLI on this machine."""
        return self.root / "admin-token"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where nginx's administration listens: deltas in, counters out. Below a 0700 folder."""
        return self.run / "gateway.sock"

    @property
    def gateway(self) -> Path:
        """nginx.conf, nginx's temporary files, the last good table."""
        return self.root / "gateway"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def templates(self) -> Path:
        """The team's own templates, `*.toml`; they go before the shipped ones of the same name."""
        return self.root / "templates"

    @property
    def workspaces(self) -> Path:
        """`<id>/home` is what a person keeps; `<id>/data` is the editor's state; `<id>/log` its output."""
        return self.root / "workspaces"

    @property
    def modules(self) -> Path:
        """The store of the Go module proxy: `cache/download` has the layout of GOMODCACHE."""
        return self.root / "goproxy"

    @property
    def modules_tokens(self) -> Path:
        """Who may ask the module proxy for what: lines of name, SHA-256 and private patterns (`goproxy/access.py`)."""
        return self.modules / "tokens"

    @property
    def modules_socket(self) -> Path:
        """Where the module proxy listens; the gateway takes `/goproxy` off the path."""
        return self.run / "goproxy.sock"

    @property
    def modules_admin_socket(self) -> Path:
        """Where the server asks the module proxy and changes it; 0600, and no gateway leads there."""
        return self.run / "goproxy-admin.sock"

    @property
    def modules_port(self) -> Path:
        """The number of the last `Installation.modules_port`, which workspaces that run still ask."""
        return self.run / "goproxy.port"

    @property
    def containers_socket(self) -> Path:
        """Where containers reach `/goproxy/` of the gateway; they see its folder and nothing else of this machine."""
        return self.run / "c" / "goproxy.sock"

    @property
    def modules_policy(self) -> Path:
        """Who may have which module, as the gateway may decide it by itself (`goproxy/clearance.py`)."""
        return self.run / "goproxy.policy"

    @property
    def modules_hits(self) -> Path:
        """Where the gateway's datagrams say which modules it served without the module proxy's role."""
        return self.run / "goproxy.hits"

    @property
    def modules_settings(self) -> Path:
        """What a team wants of the module proxy; absent: public modules, as the go command here gets them."""
        return self.root / "goproxy.toml"

    def workspace(self, workspace_id: str) -> Path:
        return self.workspaces / workspace_id

    def editor_socket(self, workspace_id: str) -> Path:
        return self.run / "w" / workspace_id / "editor.sock"


@dataclass(frozen=True, slots=True)
class Listen:
    """The one public listener."""

    address: str = "127.0.0.1"
    """Loopback: what is not asked for is not open to a network."""
    port: int = 8080
    domain: str = "localhost"
    """Browsers resolve *.localhost to loopback and treat it as a secure context."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls: bool = False
    """With no certificate given, one of the local authority is made."""

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"

    def url(self, host: str, path: str = "/") -> str:
        """The address a person types for `host`; the default port is left out."""
        default = 443 if self.tls else 80
        port = "" if self.port == default else f":{self.port}"
        return f"{self.scheme}://{host}{port}{path}"


@dataclass(frozen=True, slots=True)
class ServerLink:
    """How a gateway reaches the server: over a unix socket on one machine, by URL across machines."""

    token_file: Path
    """The gateway's credential; read anew for each connection, so that it may be replaced."""
    socket: Path | None = None
    """With one, `url` only names the Host."""
    url: str = "http://mooring"
    connect_s: float = 5.0
    """Seconds to connect and to the answer's head."""
    silence_s: float = 15.0
    """Seconds without a line until the stream is given up: three pings."""
    grants_s: float = 60.0
    """Seconds that access grants outlive the last line: what was revoked meanwhile must not work for longer."""
    report_every_s: float = 2.0
    """Small beside the minutes of an idle rule, and cheap."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Routes from a YAML file."""

    path: Path
    name: str = "file"
    rank: int = 20
    """Behind the server's sections: a file does not take a workspace's address."""
    look_every_s: float = 1.0
    """Seconds between looks at a file whose file system announces no change (NFS, some container mounts)."""


@dataclass(frozen=True, slots=True)
class RedisSource:
    """Routes from a Redis hash."""

    paths_host: str
    """The host of the path form: `ws.<domain>`."""
    url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    """Also `rediss://` and `unix:///path?db=0`."""
    hash: str = "hosts"
    name: str = "redis"
    rank: int = 30
    """Behind the server's sections and the file's: anybody who may write the hash could claim any address."""
    strip_prefix: bool = False
    """Whether `/ws/<field>` is taken off the path; editors that know their prefix want it kept."""
    access: Access = field(default_factory=Access)
    """Who may enter every one of these routes; by default whoever is signed in."""
    poll_s: float = 0.5
    """Seconds between looks: half of the second within which a change must be live."""
    calm_poll_s: float = 5.0
    """The same while the server announces changes of the hash (keyspace notifications)."""
    answer_s: float = 3.0
    """Seconds to an answer, then the connection is given up."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Everything that `mooring up` was told; what its children are built from."""

    home: Home
    listen: Listen
    editor: Path
    """The code-server program; the set-up puts it into the cache."""
    database_url: str | None = field(default=None, repr=False)
    """A SQLAlchemy URL of PostgreSQL; None is SQLite below home."""
    docker_host: str | None = None
    """Docker's address (`unix:///…`); None is the engine's usual socket, if there is one."""
    workers: int = 2
    """nginx workers: a second one keeps serving while the first is busy with TLS."""
    owner: str = "admin"
    """The first person's name: of the administrator whose token lies below home."""
    routes_file: Path | None = None
    """A YAML file of routes that the gateway watches."""
    redis: RedisSource | None = None
    """A Redis whose hash names addresses."""
    modules_port: int | None = None
    """A port of 127.0.0.1 where workspaces reach the module proxy in plain; None: they reach it at `listen`."""

    @property
    def go(self) -> Path:
        """The folder of the Go SDK: the set-up puts it beside the editor's (`<cache>/editor/bin/code-server`)."""
        return self.editor.parent.parent.parent / "go"


_INSTALLATION = TypeAdapter(Installation)


def dump(installation: Installation) -> bytes:
    """The document that a supervisor hands to its children."""
    return _INSTALLATION.dump_json(installation)


def load(document: bytes) -> Installation:
    """The opposite of `dump`."""
    return _INSTALLATION.validate_json(document)


_KEPT = (
    *("LANG", "LC_ALL", "TZ", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "SSL_CERT_FILE", "MOORING_CACHE"),
    # What the go command of whoever starts Mooring goes by, for the module proxy.
    *("GOPROXY", "GOSUMDB"),
)


def child_environment(home_folder: str, user: str) -> dict[str, str]:
    """The environment of Mooring's own children: nothing of ours but what is listed leaks into them."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": path, "HOME": home_folder, "USER": user, "LOGNAME": user, **kept}


@dataclass(frozen=True, slots=True)
class Remote:
    """What the environment tells the command line about the server that it should talk to."""

    folder: Path
    """What a person's command line keeps: `config.toml` and the keys of ssh. Default: `~/.config/mooring`."""
    url: str | None = None
    """MOORING_URL; None is what `config.toml` says, else the Mooring of this machine."""
    token: str | None = None
    """MOORING_TOKEN: in the environment, since arguments can be seen by everybody on a machine."""


def this_user() -> pwd.struct_passwd:
    """Whom this process runs as.

    Raises:
        Misconfigured: a user without a name, as a container may be started with.
    """
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise Misconfigured(
            f"the user {os.geteuid()} has no name on this machine: start as one that has (useradd makes one)"
        ) from None


def remote() -> Remote:
    """Where the command line looks for the server: MOORING_URL, MOORING_TOKEN, XDG_CONFIG_HOME."""
    base = os.environ.get("XDG_CONFIG_HOME") or f"{os.environ.get('HOME') or this_user().pw_dir}/.config"
    return Remote(
        Path(base).absolute() / "mooring",
        os.environ.get("MOORING_URL") or None,
        os.environ.get("MOORING_TOKEN") or None,
    )


def command_environment() -> dict[str, str]:
    """What a later run of the command line needs to find the same server; never a token."""
    return {name: os.environ[name] for name in ("MOORING_HOME", "MOORING_URL", "XDG_CONFIG_HOME") if name in os.environ}


def environment() -> dict[str, str]:
    """A copy of this process's environment, for building a child's."""
    return dict(os.environ)


def take_environment(home_folder: str, user: str) -> None:
    """Give this process, which has become another user, that user's: programs would look for root's settings."""
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        os.environ.pop(name, None)
    os.environ.update(HOME=home_folder, USER=user, LOGNAME=user)


def home(given: Path | None = None) -> Home:
    """Home from `--home`, MOORING_HOME or the default.

    Raises:
        Misconfigured: when a socket below it would have too long a name for the kernel.
    """
    text = os.environ.get("MOORING_HOME")
    if given is not None:
        root = given
    elif text:
        root = Path(text)
    elif os.geteuid() == 0:
        root = Path("/var/lib/mooring")
    else:
        root = Path(this_user().pw_dir) / ".local/share/mooring"
    root = root.absolute()
    if len(str(root).encode()) + LONGEST_SOCKET > MAX_SOCKET_PATH:
        raise Misconfigured(
            f"MOORING_HOME is too long for unix sockets: {root} (at most {MAX_SOCKET_PATH - LONGEST_SOCKET} bytes)",
            field="MOORING_HOME",
        )
    return Home(root)


def cache() -> Path:
    """Where the set-up keeps what is slow to build: MOORING_CACHE, /var/cache/mooring as root, ~/.cache/mooring."""
    if text := os.environ.get("MOORING_CACHE"):
        return Path(text).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/mooring")
    return Path(this_user().pw_dir) / ".cache/mooring"


def go_command(sdk: Path) -> Path:
    """The go command of an SDK's folder, else that of PATH."""
    installed = sdk / "bin/go"
    return installed if installed.exists() else Path("go")


def docker_host() -> str | None:
    """DOCKER_HOST when it is a unix socket, else None: workspaces are reached at addresses of this machine only."""
    given = os.environ.get("DOCKER_HOST", "")
    return given if given.startswith("unix://") else None


def docker_socket(host: str | None) -> Path:
    """The socket of Docker's address; where Debian's engine listens when that is None."""
    return Path(host.removeprefix("unix://")) if host else Path("/var/run/docker.sock")


def first_person() -> str:
    """The name of the administrator of `mooring up`: the login name where it may be an owner's, else `admin`."""
    name = os.environ.get("SUDO_USER") or this_user().pw_name
    try:
        return "admin" if name == "root" else check_owner(name)
    except InvalidInput:
        return "admin"


def cgroup_name(home: Home) -> str:
    """The cgroup of one installation: two on one machine must not remove each other's."""
    return f"mooring-{home.instance[:8]}"
