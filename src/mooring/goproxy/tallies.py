"""Who pulled what, how requests ended, and what failed last: in bounded memory, and in a small file across restarts."""

import asyncio
import fcntl
import os
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from mooring.control.tasks import Tasks

log = structlog.get_logger(__name__)

T = TypeVar("T")

MODULES = 10_000
"""Modules whose pulls are remembered; with every subject of each about 25 MB. The one not asked for longest goes."""
SUBJECTS = 20
ERRORS = 100
_LONGEST = 1000
_SAVE_EVERY_S = 1.0
_AGAIN_S = 30.0
"""A disk that took nothing is tried again after so long."""
_ANEW_BYTES = 2**20
"""The file is written anew when what was added to it is more than this and than twice the whole."""
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
    """Requests of each of those that came last; what others asked for is in `requests` alone."""


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
    """A line of the file."""

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
        self._unsaved = False
        self._unsaved_pulls: set[str] = set()
        self._unsaved_errors: set[str] = set()

    @property
    def hit_rate(self) -> float | None:
        """The share of answers about modules that needed no upstream; None before the first."""
        answered = sum(self.outcomes[name] for name in _ANSWERED)
        return sum(self.outcomes[name] for name in FROM_STORE) / answered if answered else None

    def ended(self, outcome: str, times: int = 1) -> None:
        """Requests for a module's files ended so."""
        self.outcomes[outcome] += times
        self._unsaved = True

    def pulled(self, module: str, subject: str, *, missed: bool = False, times: int = 1) -> None:
        """`subject` got files of `module`."""
        pulls = self.pulls.setdefault(module, Pulls())
        self.pulls.move_to_end(module)
        if len(self.pulls) > MODULES:
            self.pulls.popitem(last=False)
        pulls.requests += times
        pulls.misses += times * missed
        pulls.last = time.time()
        pulls.subjects[subject] = pulls.subjects.pop(subject, 0) + times
        if len(pulls.subjects) > SUBJECTS:
            # The first that ever came are workspaces that were deleted long ago.
            del pulls.subjects[next(iter(pulls.subjects))]
        self._unsaved_pulls.add(module)

    def failed(self, module: str, what: str, code: str, why: str) -> None:
        """A request failed for a reason that is not the client's."""
        before = self.errors.pop(what, None)
        # An upstream's answer may be in it, which is as long as the upstream likes.
        self.errors[what] = Failure(module, what, time.time(), code, why[:_LONGEST], before.times + 1 if before else 1)
        if len(self.errors) > ERRORS:
            self.errors.popitem(last=False)
        self._unsaved_errors.add(what)

    def dump(self) -> bytes:
        """All of it as a line."""
        return _line(_State(self.since, dict(self.outcomes), dict(self.pulls), list(self.errors.values())))

    def news(self) -> bytes:
        """What changed since `saved`, as a line for behind what was saved; empty when nothing did."""
        if not (self._unsaved or self._unsaved_pulls or self._unsaved_errors):
            return b""
        pulls = {name: self.pulls[name] for name in self._unsaved_pulls if name in self.pulls}
        errors = [self.errors[what] for what in self._unsaved_errors if what in self.errors]
        errors.sort(key=lambda failure: failure.at)
        return _line(_State(self.since, dict(self.outcomes), pulls, errors))

    def saved(self) -> None:
        """What `dump` or `news` just gave will be found again."""
        self._unsaved = False
        self._unsaved_pulls.clear()
        self._unsaved_errors.clear()

    def load(self, line: bytes) -> None:
        """Go on from what `dump` gave, and then from each that `news` gave after it.

        Raises:
            ValueError: it is something else.
        """
        state = _STATE.validate_json(line)
        self.since = min(self.since, state.since)
        # Not update, which adds them up.
        self.outcomes = Counter({**self.outcomes, **state.outcomes})
        for module, pulls in state.pulls.items():
            _put(self.pulls, module, pulls, MODULES)
        for failure in state.errors:
            _put(self.errors, failure.what, failure, ERRORS)

    def add(self, before: "Tallies") -> None:
        """Count as well what `before` counted, which is used up."""
        self.since = min(self.since, before.since)
        self.outcomes.update(before.outcomes)
        pulls, self.pulls = self.pulls, before.pulls
        for module, own in pulls.items():
            _put(self.pulls, module, _sum(self.pulls.get(module, Pulls()), own), MODULES)
        errors, self.errors = self.errors, before.errors
        for what, failure in errors.items():
            times = failure.times + (self.errors[what].times if what in self.errors else 0)
            _put(self.errors, what, replace(failure, times=times), ERRORS)


def _sum(before: Pulls, own: Pulls) -> Pulls:
    subjects = dict(before.subjects)
    for subject, requests in own.subjects.items():
        subjects[subject] = subjects.pop(subject, 0) + requests
    newest = dict(list(subjects.items())[-SUBJECTS:])
    return Pulls(before.requests + own.requests, before.misses + own.misses, max(before.last, own.last), newest)


def _line(state: _State) -> bytes:
    return _STATE.dump_json(state) + b"\n"


def _put(into: OrderedDict[str, T], name: str, value: T, most: int) -> None:
    into[name] = value
    into.move_to_end(name)
    if len(into) > most:
        into.popitem(last=False)


@asynccontextmanager
async def kept(tallies: Tallies, file: Path, tasks: Tasks) -> AsyncIterator[None]:
    """Go on from what `file` holds, and save into it each second and at the end; a kill loses what came since.

    Of the processes that serve one folder the first one keeps its counts, and the next one adds its own when that has
    ended; two at once would take turns to overwrite them.
    """
    saving = _Saving(tallies, file)
    if not await saving.begin():
        log.warning("counts are kept by another process, or cannot be", file=str(file), again_in_s=_AGAIN_S)
    keeping = tasks.spawn("tallies", _keep(saving))
    try:
        yield
    finally:
        # A role ends by being cancelled: what is awaited here could be cut short.
        keeping.cancel()
        saving.end()


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


def _found(file: Path) -> Tallies:
    """What the processes before counted."""
    found = Tallies()
    _read(found, file)
    return found


def _read(tallies: Tallies, file: Path) -> None:
    lost = 0
    try:
        for line in file.read_bytes().splitlines():
            try:
                tallies.load(line)
            except ValidationError:
                # A kill in the middle of a line; those before it count.
                lost += 1
    except FileNotFoundError:
        return
    except OSError as error:
        # Counts are no reason not to serve.
        log.warning("counts begin anew", file=str(file), error=error.strerror)
    if lost:
        log.warning("counts were lost", file=str(file), lines=lost)


async def _keep(saving: "_Saving") -> None:
    while True:
        # `warm` on this store may have had the lock, or a full disk none to give.
        took_it = await saving.begin() and saving.save()
        await asyncio.sleep(_SAVE_EVERY_S if took_it else _AGAIN_S)


class _Saving:
    """The file: all counts in its first line, and a line for each second in which some of them changed.

    Blocking: in a thread a line could be overtaken by the next one.
    """

    def __init__(self, tallies: Tallies, file: Path) -> None:
        self._tallies = tallies
        self._file = file
        self._fd = -1
        self._lock: int | None = None
        self._room = 0

    async def begin(self) -> bool:
        """Have the file to ourselves, and what is in it counted; False while another process has it."""
        if self._lock is not None:
            return True
        if (lock := _locked(self._file)) is None:
            return False
        try:
            self._tallies.add(await asyncio.to_thread(_found, self._file))
        except BaseException:
            # Ended in between, it must not save what lacks the counts before.
            os.close(lock)
            raise
        self._lock = lock
        return True

    def end(self) -> None:
        """Save what changed, and let others have the file."""
        if self._lock is not None:
            self.save()
            self.close()
            os.close(self._lock)
            self._lock = None

    def save(self) -> bool:
        """Save what changed; False when the disk does not take it."""
        news = self._tallies.news()
        if not news:
            return True
        try:
            if self._fd < 0 or len(news) > self._room:
                self._write_anew(self._tallies.dump())
            else:
                self._append(news)
        except OSError as error:
            log.warning("counts are not kept", file=str(self._file), error=error.strerror)
            # Half a line may be at its end, which the next one would become a part of.
            self.close()
            return False
        self._tallies.saved()
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: bytes) -> None:
        _write(self._fd, line)
        self._room -= len(line)

    def _write_anew(self, line: bytes) -> None:
        self.close()
        # Under the lock one name will do. What a killed process left may be root's, which nobody else could write over.
        temporary = self._file.with_name(f".{self._file.name}.new")
        temporary.unlink(missing_ok=True)
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write(self._fd, line)
            temporary.replace(self._file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._room = max(_ANEW_BYTES, 2 * len(line))


def _write(fd: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(fd, view) :]
