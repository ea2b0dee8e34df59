"""The short way to what is asked for most: a file that is kept, and not large, for somebody who may have it.

It says yes or nothing. Whatever it does not answer goes the long way, by the application, which alone refuses, fetches
and explains; what both answer is the same to the byte, in the log and in the counts.
"""

import time
from functools import partial

from mooring.errors import MooringError
from mooring.goproxy.access import SEGMENT
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.gate import Gate
from mooring.goproxy.names import Ask, parse
from mooring.goproxy.policy import Mark
from mooring.goproxy.responses import Hit, how_it_ended, small_headers
from mooring.goproxy.telemetry import Served, Telemetry


class Hits:
    """Finds answers without a wait: in a file of this machine."""

    def __init__(self, store: DiskStore, gate: Gate, telemetry: Telemetry) -> None:
        self._store = store
        self._gate = gate
        self._telemetry = telemetry

    def answer(self, path: bytes, authorization: bytes) -> Hit | None:
        """What a GET of all of `path` (as sent, without a query) is answered with. None: it goes the long way."""
        # A path with a token would be parsed in vain each time: no failure is remembered.
        if path.startswith(SEGMENT) or not path.endswith((b".info", b".mod", b".zip")):
            return None
        began = time.perf_counter()
        try:
            ask = parse(path)
            subject = self._gate.subject(authorization, "")
            if not isinstance(ask, Ask) or self._gate.admit(subject, ask) is Mark.direct or not ask.immutable:
                return None
            data = self._store.small(ask.name)
        except MooringError:
            return None
        if data is None:
            return None
        return small_headers(ask, data), data, partial(self._ended, ask, subject.name, began)

    def _ended(self, ask: Ask, subject: str, began: float, error: BaseException | None) -> None:
        outcome, status, detail = how_it_ended(error) if error else ("hit", 200, "")
        self._telemetry.served(Served(ask, subject, status, outcome, time.perf_counter() - began, detail))
