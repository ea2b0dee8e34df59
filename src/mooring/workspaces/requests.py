"""What callers ask of a workspace, as values; and what a new start means."""

from dataclasses import dataclass, replace

from pydantic import Field, StrictBool

from mooring.model.routes import Document
from mooring.model.workspace import Desired, Environment, GitUrl, IdleRule, Limits, Phase, Workspace


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. An administrator may change every workspace; entering one is for its owner only."""

    subject: str
    is_admin: bool = False


class NewWorkspace(Document):
    """What a person asks for; what is absent comes from the template. `owner` is for administrators."""

    name: str
    template: str = "code-server"
    owner: str | None = None
    limits: Limits | None = None
    environment: Environment = Field(default_factory=dict)
    repository: GitUrl | None = None
    idle: IdleRule | None = None
    start: StrictBool = True


class Change(Document):
    """A change: absent keys stay as they are, present ones replace the whole value.

    The idle rule and the name hold at once, limits and environment from the next start.
    """

    name: str | None = None
    limits: Limits | None = None
    environment: Environment | None = None
    idle: IdleRule | None = None


@dataclass(frozen=True, slots=True)
class IdleStatus:
    """When the workspace would stop by itself (seconds since the epoch; None: never, or it does not run) and why."""

    stops_at: float | None
    why: str


def begun(workspace: Workspace) -> Workspace:
    """`workspace` with a new start. It is never running afterwards: that would be the start before."""
    rests = workspace.phase in (Phase.stopped, Phase.failed, Phase.pending)
    phase = Phase.pending if rests else Phase.starting
    return replace(
        workspace,
        desired=Desired.running,
        phase=phase,
        reason="",
        generation=workspace.generation + 1,
        started=workspace.spec,
        started_at=None,
    )
