"""What is counted: for Prometheus, for the catalog, and one line a request in the log. Never a token."""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from mooring.goproxy.names import Ask, SumdbAsk

log = structlog.get_logger("mooring.goproxy.access")

_MODULES = 20_000
_SUBJECTS = 50
_ERRORS = 100


@dataclass(slots=True)
class Pulls:
    """What one module was asked for since this process began."""

    requests: int = 0
    misses: int = 0
    last: float = 0.0
    subjects: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """One request that was answered."""

    ask: Ask | SumdbAsk | None
    subject: str
    status: int
    outcome: str
    """`hit`, `miss`, `stale`, `refreshed`, or the code of an error."""
    seconds: float
    detail: str = ""


class Telemetry:
    """Counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "goproxy_requests",
            "Requests by what was asked and how it ended",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "goproxy_seconds",
            "Seconds until the answer was sent",
            ["kind"],
            registry=self.registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
        )
        self.pulls: OrderedDict[str, Pulls] = OrderedDict()
        self.errors: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def served(self, request: Served) -> None:
        """Count and log a request."""
        kind = _kind(request.ask)
        self._requests.labels(kind, request.outcome).inc()
        self._seconds.labels(kind).observe(request.seconds)
        if isinstance(request.ask, Ask):
            self._pulled(request.ask, request)
            self._failed(request.ask, request)
        label = request.ask.label if request.ask else ""
        log.info(
            "served",
            kind=kind,
            module=label,
            status=request.status,
            outcome=request.outcome,
            ms=round(request.seconds * 1000, 2),
            subject=request.subject,
        )

    def _failed(self, ask: Ask, request: Served) -> None:
        if request.status >= 500:  # noqa: PLR2004 - HTTP's number
            self.errors[ask.label] = (time.time(), request.detail)
            self.errors.move_to_end(ask.label)
            if len(self.errors) > _ERRORS:
                self.errors.popitem(last=False)

    def _pulled(self, ask: Ask, request: Served) -> None:
        pulls = self.pulls.get(ask.module)
        if pulls is None:
            if request.status >= 400:  # noqa: PLR2004 - HTTP's number
                # Every prefix of every import path is asked for: absent ones would push out what is used.
                return
            pulls = self.pulls[ask.module] = Pulls()
            if len(self.pulls) > _MODULES:
                self.pulls.popitem(last=False)
        self.pulls.move_to_end(ask.module)
        pulls.requests += 1
        pulls.misses += request.outcome == "miss"
        pulls.last = time.time()
        if request.subject in pulls.subjects or len(pulls.subjects) < _SUBJECTS:
            pulls.subjects[request.subject] = pulls.subjects.get(request.subject, 0) + 1

    def document(self, may: Callable[[str], bool]) -> bytes:
        """Who pulls what, and the last errors, as JSON; of modules that may be shown."""
        modules = [
            {"module": module, "requests": p.requests, "misses": p.misses, "last": p.last, "subjects": p.subjects}
            for module, p in reversed(self.pulls.items())
            if may(module)
        ]
        errors = [
            {"what": what, "at": at, "why": why}
            for what, (at, why) in reversed(self.errors.items())
            if may(what.partition("@")[0])
        ]
        return json.dumps({"pulls": modules, "errors": errors}).encode()

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)


def _kind(ask: Ask | SumdbAsk | None) -> str:
    if ask is None:
        return "other"
    return ask.kind.value if isinstance(ask, Ask) else "sumdb"
