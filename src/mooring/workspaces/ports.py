"""What workspaces need of the world. Adapters: `memory`, `memory_runtime`, `sql`, `processes`, `docker`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from mooring.model.routes import Backend
from mooring.model.template import Template
from mooring.model.workspace import Phase, Workspace

KEPT_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Page:
    """A page of workspaces in the order of their ids; `cursor` is None on the last one."""

    items: tuple[Workspace, ...]
    cursor: str | None


class WorkspaceStore(Protocol):
    """The truth about workspaces on one machine. Every method may raise `Unavailable` when the database is gone."""

    async def get(self, workspace_id: str) -> Workspace:
        """The workspace. Raises `NotFound`."""

    async def find(self, owner: str, name: str) -> Workspace:
        """The workspace of that owner and name. Raises `NotFound`."""

    async def page(self, *, owner: str | None, after: str | None, limit: int) -> Page:
        """Workspaces with an id above `after`; of everybody when `owner` is None."""

    async def create(self, workspace: Workspace) -> Workspace:
        """Insert it. Raises `Conflict` when its owner has one of that name (which deleted ones do not hold)."""

    async def update(self, workspace: Workspace, *, expected: int) -> Workspace:
        """Replace it and count its revision up. Raises `StaleRevision`, `NotFound`, `Conflict` (name in use)."""

    async def remove(self, workspace_id: str) -> None:
        """Forget it and its events. Absence is no error."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a workspace's history. `at` is in seconds since the epoch; `id` grows within the installation."""

    id: int
    workspace: str
    at: float
    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


class EventLog(Protocol):
    """Events kept per workspace; the newest `KEPT_EVENTS` of each."""

    async def append(
        self, workspace_id: str, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> Event:
        """Keep it and wake the followers; `at` is when it happened, now when None. May raise `Unavailable`.

        Whoever wants none lost tells the `Outbox`.
        """

    async def after(self, workspace_id: str | None, event_id: int, *, limit: int = KEPT_EVENTS) -> tuple[Event, ...]:
        """Events above `event_id`, oldest first; of all workspaces when the id is None.

        The default `limit` is all that is kept of one.
        """

    def follow(self, workspace_id: str | None, event_id: int) -> AsyncIterator[Event]:
        """The same, then new ones until the workspace is removed. A slow reader misses none: it reads the store.

        An id above all that there are, as one from before a backup was restored, is taken for the newest.
        """


@dataclass(frozen=True, slots=True)
class Observation:
    """What a runtime sees of one workspace.

    `phase` is starting when its processes exist (only the probe makes it running), stopping, stopped (also: nothing
    of it exists) or failed, with a `reason`. `generation` is that of the start it belongs to. `editor` is where the
    editor listens, `ports` where a port of the workspace is reached. `limited` names the limits in force here,
    `unlimited` those asked for that cannot be enforced. `restarts` counts crashes since the start. `notices` are
    things that went wrong beside the editor and do not stop it (a failed clone), each with what a person can do.
    `blind` says why the runtime cannot see it now: the rest is then how it was last.
    """

    id: str
    generation: int
    phase: Phase
    editor: Backend | None = None
    ports: Backend | None = None
    reason: str = ""
    limited: tuple[str, ...] = ()
    unlimited: tuple[str, ...] = ()
    restarts: int = 0
    notices: tuple[str, ...] = ()
    blind: str = ""


class Runtime(Protocol):
    """Makes the world match one workspace. Every method may raise `Unavailable`; the caller tries again later."""

    def missing(self) -> str:
        """What this machine lacks altogether, and what to do; empty when nothing. Never raises, and asks nobody."""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        """Start or stop so that the world matches `workspace.desired` and `generation`; idempotent and serial per id.

        Returns what is so afterwards; a start is not waited for beyond the processes' existence. A stop returns once
        no process of the workspace is left. What is found dead that should have run on is told by the watch as
        stopped, with the reason, before it starts again. Raises `Misconfigured` for what a retry cannot mend (no
        image, no program).
        """

    async def delete(self, workspace_id: str) -> None:
        """Stop it and remove its files. Absence is no error."""

    def watch(self) -> AsyncIterator[Observation]:
        """First an observation of everything that exists, then of each change, for ever.

        Never gives up: a broken watch reconnects with backoff and begins again with everything that exists.
        """


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used since the start, resident bytes, and the names of the running commands."""

    cpu_s: float
    memory_bytes: int
    commands: frozenset[str]


class Inspector(Protocol):
    """Looks into running workspaces."""

    async def usage(self, workspace_id: str) -> Usage | None:
        """None when it does not run."""

    async def owns_port(self, workspace_id: str, port: int) -> str | None:
        """The address (`host:port`) of a listener that belongs to this workspace's own processes, else None."""

    def watch_age_s(self) -> float:
        """Seconds since the watch last proved that it sees the world."""


class Logs(Protocol):
    """The output of the editor and what runs with it."""

    def read(self, workspace_id: str, *, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        """Chunks with the offset behind each; resumes at `offset`, at the oldest kept byte when that is gone.

        An offset behind the end is taken for the end.
        """


class Channel(StrEnum):
    """Where a command wrote."""

    stdout = "stdout"
    stderr = "stderr"


class ExecSession(Protocol):
    """A running command."""

    async def write(self, data: bytes) -> None:
        """To its standard input; empty bytes close it."""

    def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        """Its output until both ends are closed."""

    async def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal, if it has one."""

    async def wait(self) -> int:
        """Its exit status (128 + signal when killed)."""

    async def close(self) -> None:
        """End it: hang-up, then kill."""


class Exec(Protocol):
    """Runs commands inside a running workspace, in its environment, limits and (docker) container."""

    async def exec(
        self,
        workspace_id: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        tty: bool,
    ) -> ExecSession:
        """Start `command` in the workspace's folder. Raises `Conflict` when the workspace does not run."""


class Engine(Runtime, Inspector, Logs, Exec, Protocol):
    """One way to run workspaces, whole: what `processes.runtime` and `docker.runtime` each have."""


class TemplateHistory(Protocol):
    """The template documents that workspaces were made from. Every method may raise `Unavailable`."""

    async def keep(self, template: Template) -> None:
        """Keep it for good. Raises `Conflict` when that name and version was kept with other contents."""

    async def kept(self, name: str, version: int) -> Template | None:
        """The document, None when no workspace was made from it."""


class Probe(Protocol):
    """Asks the editor through the gateway."""

    async def answered(self, workspace: Workspace, template: Template) -> bool:
        """Whether the health path answered 200 through the gateway just now; bounded by a second.

        Raises `Unavailable` when the gateway itself does not answer: that says nothing about the editor.
        """


class InputActivity(Protocol):
    """The gateway's view of input, wired in the composition root."""

    def input_at(self, workspace_id: str) -> float:
        """Second (since the epoch) of the last input seen, 0 when none was."""

    def heard_s(self) -> float:
        """Seconds since a gateway last told what it saw; `inf` before the first time since this server started."""


class Surroundings(Protocol):
    """What Mooring offers to the processes of a workspace, wired in the composition root."""

    async def environment(self, workspace: Workspace, template: Template) -> Mapping[str, str]:
        """Variables for this start of `workspace`; what its template and its owner set goes before them.

        Secrets may be among them. Never raises: what cannot be offered now is left out, and a start goes on.
        """
