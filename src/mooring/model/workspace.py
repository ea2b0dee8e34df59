"""A workspace: its specification, the state table, and what a change of it may be.

Sizes are Kubernetes quantities (`512Mi`, `1.5G`); CPU is in cores. Source of the quantity grammar: Kubernetes'
`resource.Quantity`, without the exponent forms.
"""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictInt

from mooring.errors import Conflict
from mooring.model.routes import Document


class Phase(StrEnum):
    """What is observed. `running` means that the editor answered through the gateway."""

    pending = "pending"
    starting = "starting"
    running = "running"
    stopping = "stopping"
    stopped = "stopped"
    failed = "failed"


class Desired(StrEnum):
    """What is asked for."""

    running = "running"
    stopped = "stopped"
    deleted = "deleted"


# failed can be reached from any phase; leaving it is a new start or a stop.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.pending: frozenset({Phase.starting, Phase.stopping, Phase.stopped}),
    Phase.starting: frozenset({Phase.running, Phase.stopping, Phase.pending}),
    Phase.running: frozenset({Phase.stopping, Phase.starting, Phase.stopped}),
    Phase.stopping: frozenset({Phase.stopped, Phase.starting}),
    Phase.stopped: frozenset({Phase.pending, Phase.starting}),
    Phase.failed: frozenset({Phase.pending, Phase.starting, Phase.stopping, Phase.stopped}),
}


def may_become(now: Phase, then: Phase) -> bool:
    """Whether the table allows `now → then`."""
    return then is Phase.failed or then in TRANSITIONS[now]


_QUANTITY = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?)(?P<unit>|k|M|G|T|Ki|Mi|Gi|Ti)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity_bytes(text: str) -> int:
    """Bytes of a quantity such as `512Mi`.

    Raises:
        ValueError: when it is not one.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("must be a quantity such as 512Mi, 2Gi or 1.5G")
    return int(float(match["number"]) * _UNITS[match["unit"]])


def _quantity(text: str) -> str:
    # Above, the kernel's counters and Docker's integers are full.
    if not 2**20 <= quantity_bytes(text) <= 2**60:
        raise ValueError("must be 1Mi to 1048576Ti")
    return text


_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
MAX_ENVIRONMENT = 64 * 1024


def _environment(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if _ENV_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r}: names are letters, digits and _, not beginning with a digit")
        if name.startswith(("MOORING_", "LD_")):
            raise ValueError(f"{name}: names beginning with MOORING_ and LD_ are reserved")
        if _CONTROL.search(value):
            raise ValueError(f"{name}: the value must hold no control character but tab")
    if sum(len(k.encode()) + len(v.encode()) for k, v in values.items()) > MAX_ENVIRONMENT:
        raise ValueError("may hold at most 64 KiB in all")
    return values


_GIT_URL = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%+-]+)+/?")


def _git_url(text: str) -> str:
    if _GIT_URL.fullmatch(text) is None or ".." in text:
        raise ValueError("must be an https:// URL of a repository, without credentials")
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
GitUrl = Annotated[str, AfterValidator(_git_url)]


class IdleRule(Document):
    """When a workspace stops by itself.

    `after_s` seconds without activity (0: never). Work is CPU above `cpu_threshold` cores over a minute, or a process
    whose name is in `keep_awake`.
    """

    after_s: StrictInt = Field(default=1800, ge=0, le=30 * 86400)
    cpu_threshold: StrictFloat = Field(default=0.1, gt=0, le=64)
    keep_awake: tuple[str, ...] = Field(default=(), max_length=32)


class Limits(Document):
    """CPU in cores; memory and storage as quantities; processes and threads in number. None is not limited."""

    cpu: StrictFloat | None = Field(default=None, ge=0.05, le=512)
    memory: Quantity | None = None
    storage: Quantity | None = None
    pids: StrictInt | None = Field(default=None, ge=16, le=1_000_000)


class Spec(Document):
    """What a person asks for. `template_version` is the version it was made from, and stays until moved."""

    template: str
    template_version: StrictInt = Field(default=1, ge=1)
    limits: Limits = Limits()
    environment: Environment = Field(default_factory=dict)
    repository: GitUrl | None = None
    idle: IdleRule = IdleRule()


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace, as the store keeps it. Times are seconds since the epoch.

    `reason` is for a person and never empty when `phase` is failed; while it runs it is what went wrong beside the
    editor. `generation` counts starts: an observation of an earlier start is not one of this. `started` is the
    specification of that start, which `spec` may be ahead of; None: there was none, or it was stopped since.
    `awake_until` is the end of a declared keep-awake. `limited` names the limits that are in force now.
    """

    id: str
    owner: str
    name: str
    spec: Spec
    desired: Desired
    phase: Phase
    reason: str = ""
    revision: int = 1
    generation: int = 0
    started: Spec | None = None
    created_at: float = 0.0
    started_at: float | None = None
    active_at: float | None = None
    awake_until: float = 0.0
    limited: tuple[str, ...] = field(default=())

    @property
    def template_version(self) -> int:
        """The template version of its start, or of its first one to come."""
        return (self.started or self.spec).template_version

    @property
    def restart_needed(self) -> bool:
        """Whether it runs with other limits, another environment or template version than it has by now."""
        runs = self.desired is Desired.running and self.phase in (Phase.starting, Phase.running)
        return runs and self.started is not None and _at_start(self.started) != _at_start(self.spec)

    def observed(self, phase: Phase, reason: str = "") -> "Workspace":
        """This workspace in `phase`; the same phase only changes the reason.

        Raises:
            Conflict: when the state table does not allow it.
        """
        if phase is not self.phase and not may_become(self.phase, phase):
            raise Conflict(f"a {self.phase} workspace cannot become {phase}", field="phase")
        return replace(self, phase=phase, reason=reason)


def _at_start(spec: Spec) -> Spec:
    """What of `spec` holds from a start on: the idle rule holds at once."""
    return spec.model_copy(update={"idle": IdleRule()})
