"""What an administrator may ask of a module proxy and change in it: the port, and its documents.

`Operations` does it inside the proxy's process, `RemoteOperations` asks that one over its administration socket.
Times are seconds since the epoch, sizes bytes.
"""

from dataclasses import dataclass
from typing import Protocol

from mooring.goproxy.access import Subject
from mooring.goproxy.tallies import Failure


@dataclass(frozen=True, slots=True)
class Overview:
    """The proxy as a whole. Sizes and counts are of everything that is kept, failures of what may be shown."""

    size: int
    max_bytes: int | None
    """What the store may hold; None: no limit."""
    files: int
    modules: int
    versions: int
    outcomes: dict[str, int]
    """Requests for modules' files by how they ended: `hit`, `miss`, `refreshed`, `stale`, `direct`, an error's code."""
    hit_rate: float | None
    """The share of answers that needed no upstream; None before the first."""
    counted_since: float
    started: float
    problem: str
    """Why nothing can be saved, or which settings were not taken; empty when all is well."""
    failures: tuple[Failure, ...]
    """Newest first."""
    sumdb: str
    """What belongs into GOSUMDB of those who want private modules verified: the key of the proxy's own database."""


@dataclass(frozen=True, slots=True)
class ModuleSummary:
    """A module of which something is kept."""

    module: str
    private: bool
    versions: int
    newest: str
    """The highest version that is kept; a commit's only where there is no other."""
    size: int
    since: float
    used: float
    requests: int
    pin: str
    """The pin that covers all of it; empty when none does."""


@dataclass(frozen=True, slots=True)
class ModulePage:
    """Modules in the order of their paths; there are more behind `after`, when it is not None."""

    modules: tuple[ModuleSummary, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class VersionDetail:
    """A version that is kept, and where it came from as far as that is known."""

    version: str
    since: float
    used: float
    size: int
    zip: bool
    """Whether its zip is here; an evicted one is fetched again when somebody asks for it."""
    pin: str
    hash: str
    """Its zip's, as it was verified; empty when there is none."""
    vouched_by: str
    """The name of the checksum database or notary that it was compared with."""
    origin: str
    """The repository and commit that its info names; empty when it names none."""


@dataclass(frozen=True, slots=True)
class ModuleDetail:
    """A module with a page of its versions, the highest first; there are more behind `after`, when it is not None."""

    summary: ModuleSummary
    source: str
    """Where it is fetched from: `version control`, or `upstream`."""
    misses: int
    last_pull: float
    """0 when it was not pulled since the counting began."""
    failures: tuple[Failure, ...]
    versions: tuple[VersionDetail, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class Pull:
    """How often somebody asked for files of a module."""

    subject: str
    requests: int


@dataclass(frozen=True, slots=True)
class Removed:
    """A version whose zip was removed, or would be."""

    version: str
    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A version whose zip stays, and why."""

    version: str
    why: str


@dataclass(frozen=True, slots=True)
class Evictions:
    """What an eviction did, or would do."""

    removed: tuple[Removed, ...]
    refused: tuple[Refused, ...]
    dry_run: bool


class Administration(Protocol):
    """What people see of a module proxy, and change. `viewer` says which private modules are shown.

    Raises:
        NotFound: there is no such module or version, or `viewer` may not know of it.
        Unavailable: the proxy, or its storage, does not answer now.
    """

    async def overview(self, viewer: Subject) -> Overview:
        """The proxy as a whole."""

    async def modules(self, viewer: Subject, text: str, after: str, limit: int) -> ModulePage:
        """Modules whose path contains `text`, in whatever case, behind `after`."""

    async def module(self, viewer: Subject, module: str, after: str, limit: int) -> ModuleDetail:
        """One module with its versions behind `after`."""

    async def pulls(self, module: str) -> tuple[Pull, ...]:
        """Who pulls a module, most first; empty for one that nobody did. Not for everybody's eyes."""

    async def pin(self, module: str, version: str) -> None:
        """Never evict a version, or with an empty one the whole module. Twice is once.

        Raises:
            InvalidInput: it is no module path or version.
        """

    async def unpin(self, module: str, version: str) -> None:
        """Take such a pin back; no error when there is none.

        Raises:
            Conflict: a wider pin covers it; says which.
        """

    async def evict(self, module: str, version: str, *, dry_run: bool) -> Evictions:
        """Remove the zip of one version, or with an empty one of all that may go.

        Raises:
            Conflict: that one version must stay; says why.
        """
