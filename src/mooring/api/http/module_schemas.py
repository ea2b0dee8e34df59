"""The documents about Go modules as JSON; see `schemas`. Sizes are bytes."""

from datetime import datetime

from pydantic import Field, StrictBool

from mooring.api.http.schemas import Answer, Line
from mooring.model.routes import Document

MAX_VERSION = 200


class ModuleFailure(Answer):
    """Why the newest request for something failed: `what` is `MODULE@VERSION`, `@list` or `@latest`."""

    module: str
    what: str
    at: datetime
    code: str
    why: str
    times: int


class ModuleProxy(Answer):
    """The module proxy as a whole. `proxy` and `sumdb` are the values for GOPROXY and GOSUMDB outside of workspaces.

    `outcomes` counts requests by how they ended since `counted_since`; `hit_rate` is the share of answers that needed
    no upstream, absent before the first. `problem` is empty when all is well.
    """

    size: int
    max_size: int | None
    files: int
    modules: int
    versions: int
    outcomes: dict[str, int]
    hit_rate: float | None
    counted_since: datetime
    started_at: datetime
    problem: str
    failures: tuple[ModuleFailure, ...]
    proxy: str
    sumdb: str


class Module(Answer):
    """A module of which something is kept. `pin` is the pin that covers all of it; empty when none does."""

    module: str
    private: bool
    versions: int
    newest: str
    size: int
    since: datetime
    used_at: datetime
    requests: int
    pin: str


class ModuleVersion(Answer):
    """A version that is kept. Without `zip` only its small files are: the rest is fetched when somebody asks.

    `hash` is its zip's as it was verified against `vouched_by`; `origin` the repository and commit, where known.
    """

    version: str
    since: datetime
    used_at: datetime
    size: int
    zip: bool
    pin: str
    hash: str
    vouched_by: str
    origin: str


class ModuleDetail(Module):
    """A module with a page of its versions, the highest first; `cursor` is absent on the last page."""

    source: str
    misses: int
    pulled_at: datetime | None
    failures: tuple[ModuleFailure, ...]
    items: tuple[ModuleVersion, ...]
    cursor: str | None = None


class ModulePull(Answer):
    """How often somebody asked for files of a module: `workspace:OWNER/NAME`, or the name of a token."""

    subject: str
    requests: int


class Evict(Document):
    """What should go: a version, or with none all of a module that may. `dry_run` only says what would."""

    version: Line = Field(default="", max_length=MAX_VERSION)
    dry_run: StrictBool = False


class EvictedVersion(Answer):
    """A version whose zip was removed, or would be."""

    version: str
    size: int


class RefusedVersion(Answer):
    """A version whose zip stays, and why."""

    version: str
    why: str


class Eviction(Answer):
    """What an eviction did, or would do."""

    removed: tuple[EvictedVersion, ...]
    refused: tuple[RefusedVersion, ...]
    dry_run: bool
