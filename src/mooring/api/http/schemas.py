"""The documents of the API as JSON. Unknown keys of a request are errors; times are RFC 3339 in UTC.

Values and their rules come from `model`; here is only what the wire adds.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt

from mooring.accounts.ports import Role
from mooring.model.routes import Document, Route
from mooring.model.workspace import Desired, IdleRule, Limits, Phase
from mooring.routes.ports import FIRST_RANK, LAST_RANK

T = TypeVar("T")
NOT_LIMITED = "not limited"
MAX_AWAKE_S = 7 * 86400
MAX_TOKEN_S = 10 * 365 * 86400


def no_control(text: str) -> str:
    """`text` if it holds no control character, which could end a header or a log line.

    Raises:
        ValueError: otherwise.
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in text):  # noqa: PLR2004 - C0 and DEL
        raise ValueError("must hold no control character")
    return text


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the wire's time."""
    return datetime.fromtimestamp(seconds, UTC)


Line = Annotated[str, AfterValidator(no_control)]


class Answer(BaseModel):
    """What the server says. Clients ignore keys that they do not know: new ones may come."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """An error (RFC 9457): `code` is stable, `field` is the dotted path of the value that is wrong."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None


class Page(Answer, Generic[T]):
    """A page of a list; the next one is asked for with `cursor`, which is absent on the last."""

    items: tuple[T, ...]
    cursor: str | None = None


# Accounts


class Me(Answer):
    """Who is calling, and with what."""

    name: str
    role: Role
    credential: Literal["token", "session"]
    console_url: str


class UserCreate(Document):
    """A new user: 2 to 20 lower-case letters, digits and single hyphens."""

    name: str
    role: Role = Role.member


class User(Answer):
    """A person who may own workspaces."""

    name: str
    role: Role
    created_at: datetime


class TokenCreate(Document):
    """A new bearer token; without `expires_in_s` it is valid until it is revoked."""

    label: Line = Field(default="", max_length=100)
    expires_in_s: StrictInt | None = Field(default=None, ge=60, le=MAX_TOKEN_S)


class Token(Answer):
    """A bearer token, without its secret."""

    id: str
    user: str
    label: str
    created_at: datetime
    expires_at: datetime | None


class NewToken(Token):
    """A bearer token as it is made: `token` is shown this once and kept nowhere."""

    token: str


class TicketCreate(Document):
    """Where a one-time link leads: `next` on the workspace's host, the host of one of its ports, or its path form."""

    next: Line = Field(default="/", max_length=2048)
    port: StrictInt | None = Field(default=None, ge=1, le=65535)
    path_form: StrictBool = False


class ConsoleTicketCreate(Document):
    """Where a one-time link to the console leads."""

    next: Line = Field(default="/", max_length=2048)


class Ticket(Answer):
    """A link that signs one browser in, once, until `expires_at`."""

    url: str
    expires_at: datetime


# Workspaces


class KeepAwake(Document):
    """For how long the idle rule is off; 0 ends it."""

    for_s: StrictInt = Field(ge=0, le=MAX_AWAKE_S)


class TemplateMove(Document):
    """The template version to move to; the newest when absent. It holds from the next start."""

    version: StrictInt | None = Field(default=None, ge=1)


class LimitsInForce(Answer):
    """What is enforced on this machine now, as a value for a person, or "not limited"."""

    cpu: str = NOT_LIMITED
    memory: str = NOT_LIMITED
    storage: str = NOT_LIMITED
    pids: str = NOT_LIMITED


class IdleStatus(Answer):
    """When the workspace would stop by itself (absent: never, or it does not run) and why."""

    stops_at: datetime | None
    why: str
    active_at: datetime | None
    awake_until: datetime | None


class Workspace(Answer):
    """A workspace. `url` is its editor, `path_url` the same where no wildcard name works, `port_url` a port of it.

    `reason` is why it is in its phase; while it runs, what went wrong beside the editor (a failed clone).
    `restart_needed`: limits, environment or template version changed since it started, and hold from its next start.
    """

    id: str
    name: str
    owner: str
    template: str
    template_version: int
    newer_template_version: int | None
    desired: Desired
    phase: Phase
    reason: str
    revision: int
    generation: int
    created_at: datetime
    started_at: datetime | None
    url: str
    path_url: str
    port_url: str
    limits: Limits
    limits_in_force: LimitsInForce
    restart_needed: bool
    environment: dict[str, str]
    repository: str | None
    idle: IdleRule
    idle_status: IdleStatus


class Event(Answer):
    """One line of a workspace's history; `id` grows, and is the id of the server-sent event."""

    id: int
    workspace: str
    at: datetime
    kind: str
    text: str
    data: dict[str, Any]


class LogChunk(Answer):
    """Output of a workspace as one server-sent event, whose id is the byte offset behind it."""

    text: str


# Templates and routes


class TemplateSummary(Answer):
    """A template in the list; `version` is the newest."""

    name: str
    version: int
    description: str
    runtime: Literal["process", "docker"]


class TemplatePage(Page[TemplateSummary]):
    """The templates; `mistakes` are files that are none, each with file, line and key."""

    mistakes: tuple[str, ...] = ()


class RouteName(Answer):
    """What identifies a route in the merged table."""

    source: str
    name: str


class RouteEntry(Answer):
    """A route of the table; with `lost_to` it is not served, because that one matches the same and won.

    `route` is a `Route`, whose `backends` and mirror are shown to administrators only. `gateway` is where it comes
    from, when not from the server: that gateway's own file, or its Redis.
    """

    source: str
    name: str
    rank: int
    route: dict[str, Any]
    lost_to: RouteName | None = None
    gateway: str | None = None


class SectionPublish(Document):
    """All the routes of one source, replaced as a whole. The smaller rank wins a conflict."""

    rank: StrictInt = Field(default=500, ge=FIRST_RANK, le=LAST_RANK)
    routes: tuple[Route, ...] = Field(default=(), max_length=20_000)


class Section(Answer):
    """All the routes of one source. `published` is false for the built-in ones.

    `gateway` is where it comes from, when not from the server: that gateway's own file, or its Redis. `lost` routes of
    it are not served, because another goes first.
    """

    source: str
    rank: int
    routes: int
    published: bool
    lost: int = 0
    gateway: str | None = None


# Health


class Watch(Answer):
    """One thing the server must keep seeing. `age_s` absent: it has never been seen.

    `starting`: it is not seen yet (`ok` is false), which is no fault within the time that a start usually takes.
    """

    name: str
    age_s: float | None
    most_s: float
    ok: bool
    required: bool
    starting: bool = False


class Health(Answer):
    """Whether requests should come here, and the age of every watch.

    `problem_count` is how many lines `problems` has, what is wrong at the gateways; those are for administrators.
    """

    ready: bool
    watches: tuple[Watch, ...]
    problem_count: int = 0
    problems: tuple[str, ...] = ()


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


# Gateways


class NginxReport(Answer):
    """A gateway's nginx: the pids of its workers, and how often it had to be started again."""

    workers: tuple[int, ...] = ()
    restarts: int = 0


class SectionReport(Answer):
    """A section in a gateway's table, and how many of its routes lost a conflict there."""

    rank: int
    routes: int
    lost: int = 0


class GatewayReport(Answer):
    """What a gateway says every two seconds; see `docs/architecture.md`."""

    gateway: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    applied: tuple[str, int] | None = None
    sources: dict[str, float | None] = {}
    sections: dict[str, SectionReport] = {}
    activity: dict[str, float] = {}
    connections: dict[str, int] = {}
    nginx: NginxReport = NginxReport()
    metrics: str = ""
    problems: tuple[str, ...] = ()
    table: str | None = Field(default=None, max_length=64)


class OwnSection(Answer):
    """A section that only a gateway has."""

    rank: int
    routes: tuple[Route, ...]


class OwnConflict(Answer):
    """Two routes of a gateway's table that match the same."""

    loser: RouteName
    winner: RouteName


class GatewayTable(Answer):
    """What only this gateway knows of its table, and the conflicts that it is part of; see `docs/architecture.md`."""

    gateway: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    version: str = Field(max_length=64)
    sections: dict[str, OwnSection]
    conflicts: tuple[OwnConflict, ...] = ()


class Listener(Answer):
    """Where a port of a workspace is reached."""

    address: str
