"""Log lines on their way to a file or a pipe: rendered in one step, and several of them in one write."""

import asyncio
import json
import logging
import os
import threading
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict

_TOGETHER_S = 0.1


class Lines:
    """Writes lines of the level info together, ten times a second; a warning or worse goes out at once, with them.

    A write for each answer's line would wake up whoever reads them as often. A kill loses a tenth of a second. What
    the disk does not take is lost: a log is no reason not to answer.
    """

    def __init__(self, out: int) -> None:
        """`out` is an open file."""
        self._out = out
        self._waiting: list[bytes] = []
        self._torn = b""
        self._lock = threading.Lock()

    def info(self, line: bytes) -> None:
        """Write it soon; at once where no event loop would."""
        with self._lock:
            self._waiting.append(line)
            first = len(self._waiting) == 1
        if first:
            try:
                asyncio.get_running_loop().call_later(_TOGETHER_S, self.flush)
            except RuntimeError:
                self.flush()

    def warning(self, line: bytes) -> None:
        """Write it now."""
        with self._lock:
            self._waiting.append(line)
        self.flush()

    error = critical = warning

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            text = memoryview(self._torn + b"".join(waiting))
            done = 0
            try:
                while done < len(text):
                    done += os.write(self._out, text[done:])
            except OSError:
                # Behind half a line the next one would be a part of it, and neither could be read.
                self._torn = b"\n" if done and text[done - 1] != ord("\n") else self._torn[done:]
            else:
                self._torn = b""


_Filtering: Any = structlog.make_filtering_bound_logger(logging.INFO)


class Logger(_Filtering):  # type: ignore[misc]  # structlog makes the class
    """As structlog has it, but that a line of the level info is copied once on its way: each answer has one."""

    def info(self, event: str, **values: object) -> None:
        """Write it soon. Its processors are not asked: it is `rendered`."""
        self._logger.info(rendered(self._logger, "info", {**self._context, **values, "event": event}))


def rendered(logger: object, level: str, event: EventDict) -> bytes:
    """A line of JSON. In one step: a chain of processors costs several times as much, for each answer."""
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    if event.get("exc_info"):
        event = structlog.processors.format_exc_info(logger, level, event)
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A path that is not UTF-8 has surrogates, which orjson refuses: whoever logs it would fail instead.
        event["timestamp"] = event["timestamp"].isoformat().replace("+00:00", "Z")
        return json.dumps(event, default=repr).encode() + b"\n"
