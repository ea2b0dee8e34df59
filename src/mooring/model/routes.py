"""Routes: what the gateway matches, where it sends a request, what it changes and whom it lets in.

A route is data that anybody may publish: every value is checked here, once, and nothing of it is ever written into
nginx's configuration. Unknown keys are refused, so that a misspelt one does not silently open a route.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

CATCH_ALL = "*"
PORT = "{port}"
RESERVED = "/.mooring"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_PORT_HOST = re.compile(rf"p\{{port\}}--{_LABEL}(?:\.{_LABEL})*")
# pchar of RFC 3986 without percent-encoding: a path in a route is compared with the raw bytes of the request.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-])*")
_PORT_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-])*/\{port\}/?")
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]{1,253}):(?P<port>[0-9]{1,5}|\{port\})")
_ORIGIN = re.compile(rf"https?://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]{0,4096}")
_ROUTE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/:-]{0,251}[A-Za-z0-9])?")


class Document(BaseModel):
    """A frozen document whose unknown keys are errors.

    Its numbers and flags are pydantic's strict ones: text is no number, and `true` is not 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=8192)


def _host(text: str) -> str:
    ok = text == CATCH_ALL or _HOST.fullmatch(text) or _PORT_HOST.fullmatch(text)
    if not ok or len(text) > 253:  # noqa: PLR2004 - RFC 1035's limit of a name
        raise ValueError("must be a lower-case host name, *.suffix, * or p{port}--name")
    return text


def _path(text: str) -> str:
    ok = _PATH.fullmatch(text) or _PORT_PATH.fullmatch(text)
    dots = any(segment in (".", "..") for segment in text.split("/"))
    if not ok or dots or "//" in text:
        raise ValueError("must begin with / and hold no %, space, // or dot segment")
    if text == RESERVED or text.startswith(RESERVED + "/"):
        raise ValueError(f"{RESERVED}/ is reserved on every host")
    return text


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["port"] != PORT and not 0 < int(match["port"]) <= 65535):  # noqa: PLR2004
        raise ValueError("must be host:port, [ipv6]:port, or host:{port}")
    return text


def _exact_host(text: str) -> str:
    if _HOST.fullmatch(text) is None or text.startswith("*") or len(text) > 253:  # noqa: PLR2004 - see _host
        raise ValueError("must be a lower-case host name")
    return text


def _origin(text: str) -> str:
    if text != "*" and (_ORIGIN.fullmatch(text) is None or len(text) > 300):  # noqa: PLR2004 - scheme, name, port
        raise ValueError("must be an origin such as https://example.org, or *")
    return text


def _header_name(text: str) -> str:
    if _HEADER_NAME.fullmatch(text) is None:
        raise ValueError("must be a header name (RFC 9110 token)")
    return text.lower()


def _header_value(text: str) -> str:
    if _HEADER_VALUE.fullmatch(text) is None:
        raise ValueError("must hold no control character")
    return text


def _route_name(text: str) -> str:
    if _ROUTE_NAME.fullmatch(text) is None:
        raise ValueError("must be 1 to 253 letters, digits and . _ / : -")
    return text


def _socket_path(text: str) -> str:
    # sun_path holds 108 bytes with its end (unix(7)).
    if not text.startswith("/") or len(text.encode()) > 107 or any(ord(c) < 32 for c in text) or ".." in text:  # noqa: PLR2004
        raise ValueError("must be an absolute path of at most 107 bytes without ..")
    return text


Host = Annotated[str, AfterValidator(_host)]
Path = Annotated[str, AfterValidator(_path)]
ExactHost = Annotated[str, AfterValidator(_exact_host)]
Origin = Annotated[str, AfterValidator(_origin)]
Method = Annotated[str, Field(pattern=r"^[A-Z]{1,32}$")]
Subject = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-]{1,253}$")]
Address = Annotated[str, AfterValidator(_address)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
RouteName = Annotated[str, AfterValidator(_route_name)]
SocketPath = Annotated[str, AfterValidator(_socket_path)]


class RouteState(StrEnum):
    """What the gateway answers: the backend, a progress page, or a page that says how to start it."""

    serving = "serving"
    starting = "starting"
    stopped = "stopped"


class PathMatch(StrEnum):
    """Prefix goes by whole segments: `/a` matches `/a/b` and not `/ab`."""

    prefix = "prefix"
    exact = "exact"


class Match(Document):
    """A condition besides host and path. `value` None means: present, whatever its value."""

    kind: Literal["header", "query", "method"]
    name: str = Field(default="", max_length=128)
    value: HeaderValue | None = None


class BackendTls(Document):
    """TLS towards a backend. `server_name` is sent and verified; `verify` off is for self-signed test servers."""

    server_name: ExactHost | None = None
    verify: StrictBool = True


class Backend(Document):
    """Exactly one of `address`, `unix`, `listener_of` and `files`.

    `listener_of` is a workspace id: the port in the request is served at 127.0.0.1 only while its listener belongs to
    that workspace's own processes, which the gateway asks the server (process runtime).
    `identity` is the workspace id that the address belonged to when it was published: after a restart of the gateway
    such an address is withheld until its source has confirmed it. A unix socket below a folder named for the
    workspace proves itself.
    """

    address: Address | None = None
    unix: SocketPath | None = None
    listener_of: str | None = Field(default=None, pattern=r"^[a-z0-9]{10}$")
    files: str | None = Field(default=None, max_length=1024, pattern=r"^/[^\x00-\x1f]*$")
    weight: StrictInt = Field(default=1, ge=0, le=1000)
    protocol: Literal["http", "https"] = "http"
    tls: BackendTls | None = None
    identity: str | None = Field(default=None, pattern=r"^[a-z0-9]{10}$")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        targets = (self.address, self.unix, self.listener_of, self.files)
        if sum(target is not None for target in targets) != 1:
            raise ValueError("needs exactly one of address, unix, listener_of and files")
        return self


class HeaderFilter(Document):
    """Changes to headers: `set` replaces, `add` appends, `remove` drops; names are case-insensitive."""

    set: dict[HeaderName, HeaderValue] = {}
    add: dict[HeaderName, HeaderValue] = {}
    remove: tuple[HeaderName, ...] = ()


class Redirect(Document):
    """An answer instead of a backend. Absent parts stay those of the request."""

    scheme: Literal["http", "https"] | None = None
    host: ExactHost | None = None
    port: StrictInt | None = Field(default=None, ge=1, le=65535)
    path: Path | None = None
    status: Literal[301, 302, 303, 307, 308] = 302


class Cors(Document):
    """CORS answered by the gateway; `origins` are full origins, or `*` without credentials."""

    origins: tuple[Origin, ...]
    methods: tuple[Method, ...] = ("GET", "HEAD", "POST")
    headers: tuple[HeaderName, ...] = ()
    credentials: StrictBool = False
    max_age_s: StrictInt = Field(default=600, ge=0, le=86400)


class Mirror(Document):
    """A second backend that gets a copy of `percent` of the requests; what it answers is ignored."""

    backend: Backend
    percent: StrictInt = Field(default=100, ge=1, le=100)

    @model_validator(mode="after")
    def _takes_requests(self) -> Self:
        backend = self.backend
        if backend.unix is None and (backend.address is None or backend.address.endswith(PORT)):
            raise ValueError("a mirror needs an address with a port of its own, or a unix socket")
        if backend.identity is not None or backend.weight != 1:
            raise ValueError("a mirror has no weight and no identity")
        return self


class Filters(Document):
    """What changes on the way. `strip_prefix` takes the matched prefix off; `rewrite_prefix` puts another there."""

    strip_prefix: StrictBool = False
    rewrite_prefix: Path | None = None
    request_headers: HeaderFilter | None = None
    response_headers: HeaderFilter | None = None
    redirect: Redirect | None = None
    cors: Cors | None = None
    mirror: Mirror | None = None


class Access(Document):
    """Who may enter. `subjects` are user names; `kind` subjects with none listed lets nobody in."""

    kind: Literal["public", "authenticated", "subjects"] = "authenticated"
    subjects: tuple[Subject, ...] = ()


class Timeouts(Document):
    """Seconds. The read time-out does not apply to WebSockets."""

    connect_s: StrictFloat = Field(default=5, gt=0, le=60)
    read_s: StrictFloat = Field(default=300, gt=0, le=86400)


class Balancing(StrEnum):
    """How one of several backends is picked; both respect weights."""

    round_robin = "round_robin"
    least_connections = "least_connections"


class Route(Document):
    """One entry of the route table; `name` is unique within its section.

    `workspace` names the workspace that the route belongs to: its activity is counted, and its input observed.
    `order` settles conflicts inside one rank: the smaller wins. `probe` is the path that the readiness probe asks.
    """

    name: RouteName
    listener: str = Field(default="main", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    host: Host = CATCH_ALL
    path: Path = "/"
    path_match: PathMatch = PathMatch.prefix
    matches: tuple[Match, ...] = Field(default=(), max_length=16)
    order: StrictInt = Field(default=0, ge=-1000, le=1000)
    state: RouteState = RouteState.serving
    backends: tuple[Backend, ...] = Field(default=(), max_length=512)
    filters: Filters = Filters()
    access: Access = Access()
    timeouts: Timeouts = Timeouts()
    balancing: Balancing = Balancing.round_robin
    affinity: Literal["none", "client_address", "cookie"] = "none"
    workspace: str | None = Field(default=None, pattern=r"^[a-z0-9]{10}$")

    def targets(self) -> tuple[Backend, ...]:
        """Everything that requests are sent to: the backends, and who gets copies."""
        mirror = self.filters.mirror
        return self.backends if mirror is None else (*self.backends, mirror.backend)

    @model_validator(mode="after")
    def _serving_needs_a_backend(self) -> Self:
        if self.state is RouteState.serving and not self.backends and self.filters.redirect is None:
            raise ValueError("a serving route needs backends or a redirect")
        if PORT in self.host and PORT in self.path:
            raise ValueError("{port} may stand in host or path, not in both")
        wants_port = any(b.listener_of or (b.address or "").endswith(PORT) for b in self.backends)
        if wants_port and PORT not in self.host + self.path:
            raise ValueError("a backend with a port of the request needs {port} in host or path")
        return self
