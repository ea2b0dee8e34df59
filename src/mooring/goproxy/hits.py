"""The short way to what is asked for most: an `.info` or a `.mod` that is kept, for somebody who may have it.

It says yes or nothing. Whatever it does not answer goes the long way, by the application, which alone refuses, fetches
and explains; what both answer is the same to the byte, in the log and in the counts. Nothing is waited
for, though: of a client that goes away without reading it the log says `hit`, 200, where the long way says `gone`, 499.
"""

import time
from collections.abc import Callable

from mooring.errors import MooringError
from mooring.goproxy.access import SEGMENT
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.gate import Gate
from mooring.goproxy.names import Ask, parse
from mooring.goproxy.policy import Mark
from mooring.goproxy.responses import small_headers
from mooring.goproxy.telemetry import Served, Telemetry

Say = Callable[[tuple[tuple[bytes, bytes], ...], bytes], None]
"""Sends a whole answer with the status 200: its headers, its body."""


class Hits:
    """Answers on the spot, without a wait: from a file of this machine."""

    def __init__(self, store: DiskStore, gate: Gate, telemetry: Telemetry) -> None:
        self._store = store
        self._gate = gate
        self._telemetry = telemetry

    def answer(self, path: bytes, authorization: bytes, say: Say) -> bool:
        """Answer a GET of `path` (as sent, without a query). False: nothing was done, and it goes the long way."""
        # A path with a token would be parsed in vain each time: no failure is remembered.
        if path.startswith(SEGMENT) or not path.endswith((b".info", b".mod")):
            return False
        began = time.perf_counter()
        try:
            ask = parse(path)
            subject = self._gate.subject(authorization, "")
            if not isinstance(ask, Ask) or self._gate.admit(subject, ask) is Mark.direct or not ask.immutable:
                return False
            data = self._store.small(ask.name)
        except MooringError:
            return False
        if data is None:
            return False
        say(small_headers(ask, data), data)
        seconds = time.perf_counter() - began
        self._telemetry.served(Served(ask, subject.name, 200, "hit", seconds))
        return True
