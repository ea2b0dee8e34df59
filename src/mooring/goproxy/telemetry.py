"""What is counted: for Prometheus, for people, and one line a request in the log. Never a token."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from mooring.goproxy.faults import UpstreamRefused
from mooring.goproxy.names import Ask, Kind, SumdbAsk
from mooring.goproxy.tallies import Tallies

log = structlog.get_logger("mooring.goproxy.access")


@dataclass(slots=True)
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

    def __init__(self, tallies: Tallies) -> None:
        self.tallies = tallies
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
        self._counted: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        # Looked up anew for each line otherwise.
        self._log = log.bind()

    def served(self, request: Served) -> None:
        """Count and log a request."""
        kind = _kind(request.ask)
        times, seconds = self._counted.get((kind, request.outcome)) or self._counters(kind, request.outcome)
        times.inc()
        seconds.observe(request.seconds)
        if isinstance(request.ask, Ask):
            self._tally(request.ask, request)
        label = request.ask.label if request.ask else ""
        self._log.info(
            "served",
            kind=kind,
            module=label,
            status=request.status,
            outcome=request.outcome,
            ms=round(request.seconds * 1000, 2),
            subject=request.subject,
        )

    def _counters(self, kind: str, outcome: str) -> tuple[Counter, Histogram]:
        """Finding them by their labels costs more than to count; there are as many as kinds and codes of errors."""
        found = self._counted[kind, outcome] = (self._requests.labels(kind, outcome), self._seconds.labels(kind))
        return found

    def served_by_gateway(self, ask: Ask, subject: str, times: int) -> None:
        """Count and log what `subject` got so often without this process. How long it took nobody measured."""
        self.counted(ask.kind, times)
        self.tallies.pulled(ask.module, subject, times=times)
        self._log.info(
            "served",
            kind=ask.kind.value,
            module=ask.label,
            status=200,
            outcome="hit",
            times=times,
            by="gateway",
            subject=subject,
        )

    def counted(self, kind: Kind, times: int) -> None:
        """Count hits of which no more is known."""
        self._requests.labels(kind.value, "hit").inc(times)
        self.tallies.ended("hit", times)

    def _tally(self, ask: Ask, request: Served) -> None:
        self.tallies.ended(request.outcome)
        failed = request.status >= 500 or request.outcome == UpstreamRefused.code  # noqa: PLR2004 - HTTP's number
        # Every prefix of every import path is asked for: absent ones would push out what is used. And who is refused a
        # module must not see by their own count whether there is one.
        if request.status < 400 or (failed and ask.module in self.tallies.pulls):  # noqa: PLR2004
            self.tallies.pulled(ask.module, request.subject, missed=request.outcome == "miss")
        if failed:
            self.tallies.failed(ask.module, ask.label, request.outcome, request.detail)

    def document(self, may: Callable[[str], bool], subject: str | None) -> bytes:
        """Who pulls what, and the last errors, as JSON; of modules that may be shown.

        `subject` is told of no other one; None is told of all.
        """
        modules = [
            {
                "module": module,
                "requests": p.requests,
                "misses": p.misses,
                "last": p.last,
                "subjects": {name: n for name, n in p.subjects.items() if subject in (None, name)},
            }
            for module, p in reversed(self.tallies.pulls.items())
            if may(module)
        ]
        errors = [
            {"what": failure.what, "at": failure.at, "why": failure.why}
            for failure in reversed(self.tallies.errors.values())
            if may(failure.module)
        ]
        return json.dumps({"pulls": modules, "errors": errors}).encode()

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)


def _kind(ask: Ask | SumdbAsk | None) -> str:
    if ask is None:
        return "other"
    return ask.kind.value if isinstance(ask, Ask) else "sumdb"
