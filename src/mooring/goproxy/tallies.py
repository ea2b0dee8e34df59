"""Who pulled what, how requests ended, and what failed last: in bounded memory, and in a small file across restarts."""

import asyncio
import fcntl
import os
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from mooring.control.tasks import Tasks

log = structlog.get_logger(__name__)

MODULES = 10_000
"""Modules whose pulls are remembered; with every subject of each about 25 MB. The one not asked for longest goes."""
SUBJECTS = 20
ERRORS = 100
_LONGEST = 1000
_SAVE_EVERY_S = 30.0
FROM_STORE = ("hit", "stale")
"""Outcomes that needed no upstream."""
_ANSWERED = (*FROM_STORE, "miss", "refreshed")


@dataclass(slots=True)
class Pulls:
    """What one module was asked for. Moments in seconds since the epoch."""

    requests: int = 0
    misses: int = 0
    last: float = 0.0
    subjects: dict[str, int] = field(default_factory=dict)
    """Requests of each; what further subjects asked for is in `requests` alone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the newest request for something failed, and how often that something did."""

    module: str
    what: str
    """`MODULE@VERSION`, `@list` or `@latest`."""
    at: float
    code: str
    why: str
    times: int = 1


@dataclass(slots=True)
class _State:
    """What the file holds."""

    since: float = field(default_factory=time.time)
    outcomes: dict[str, int] = field(default_factory=dict)
    pulls: dict[str, Pulls] = field(default_factory=dict)
    errors: list[Failure] = field(default_factory=list)


_STATE = TypeAdapter(_State)


class Tallies:
    """The counts of one process, and of those before it where `kept` found them."""

    def __init__(self) -> None:
        self.started = time.time()
        self.since = self.started
        """When the counting began; before `started` where an earlier process's counts were found."""
        self.outcomes: Counter[str] = Counter()
        self.pulls: OrderedDict[str, Pulls] = OrderedDict()
        self.errors: OrderedDict[str, Failure] = OrderedDict()
        self.changes = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of answers about modules that needed no upstream; None before the first."""
        answered = sum(self.outcomes[name] for name in _ANSWERED)
        return sum(self.outcomes[name] for name in FROM_STORE) / answered if answered else None

    def ended(self, outcome: str, times: int = 1) -> None:
        """Requests for a module's files ended so."""
        self.outcomes[outcome] += times
        self.changes += 1

    def pulled(self, module: str, subject: str, *, missed: bool = False, times: int = 1) -> None:
        """`subject` got files of `module`."""
        pulls = self.pulls.setdefault(module, Pulls())
        self.pulls.move_to_end(module)
        if len(self.pulls) > MODULES:
            self.pulls.popitem(last=False)
        pulls.requests += times
        pulls.misses += times * missed
        pulls.last = time.time()
        if subject in pulls.subjects or len(pulls.subjects) < SUBJECTS:
            pulls.subjects[subject] = pulls.subjects.get(subject, 0) + times
        self.changes += 1

    def failed(self, module: str, what: str, code: str, why: str) -> None:
        """A request failed for a reason that is not the client's."""
        before = self.errors.pop(what, None)
        # An upstream's answer may be in it, which is as long as the upstream likes.
        self.errors[what] = Failure(module, what, time.time(), code, why[:_LONGEST], before.times + 1 if before else 1)
        if len(self.errors) > ERRORS:
            self.errors.popitem(last=False)
        self.changes += 1

    def dump(self) -> bytes:
        """All of it as a document."""
        return _STATE.dump_json(_State(self.since, dict(self.outcomes), dict(self.pulls), list(self.errors.values())))

    def load(self, document: bytes) -> None:
        """Go on from what `dump` gave.

        Raises:
            ValueError: it is something else.
        """
        state = _STATE.validate_json(document)
        self.since = min(self.since, state.since)
        self.outcomes.update(state.outcomes)
        for module, pulls in list(state.pulls.items())[-MODULES:]:
            self.pulls[module] = pulls
        for failure in state.errors[-ERRORS:]:
            self.errors[failure.what] = failure


@asynccontextmanager
async def kept(tallies: Tallies, file: Path, tasks: Tasks) -> AsyncIterator[None]:
    """Go on from what `file` holds and save into it every 30 s and at the end; a kill loses what came since.

    Of the processes that serve one folder the first one keeps its counts; two would take turns to overwrite them.
    """
    lock = await asyncio.to_thread(_locked, file)
    if lock is None:
        log.warning("counts are kept by another process, or cannot be", file=str(file))
        yield
        return
    try:
        await asyncio.to_thread(_read, tallies, file)
        tasks.forever("tallies", _keep(tallies, file))
        yield
    finally:
        # A role ends by being cancelled: what is awaited here could be cut short.
        _write(file, tallies.dump())
        os.close(lock)


def _locked(file: Path) -> int | None:
    try:
        fd = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _read(tallies: Tallies, file: Path) -> None:
    try:
        tallies.load(file.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValidationError) as error:
        # Counts are no reason not to serve.
        log.warning("counts begin anew", file=str(file), error=str(error))


async def _keep(tallies: Tallies, file: Path) -> None:
    saved = tallies.changes
    while True:
        await asyncio.sleep(_SAVE_EVERY_S)
        if tallies.changes != saved:
            saved = tallies.changes
            # In a thread it could be overtaken by the last one, and then replace it.
            _write(file, tallies.dump())


def _write(file: Path, document: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as new:
            new.write(document)
        temporary.replace(file)
    except OSError as error:
        log.warning("counts are not kept", file=str(file), error=error.strerror)
        temporary.unlink(missing_ok=True)
