"""Logging of the roles: one JSON line an event, into a file that is rotated, never a secret."""

import atexit
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from mooring.server.lines import Lines, Logger, rendered
from mooring.settings import environment

_MAX_BYTES = 16 * 2**20
_KEPT_FILES = 3
_END_BYTES = 64 * 1024
_LONGEST = 300
ROLE_ENDED = "the role ended"
"""The event of a role that ends by itself, with its `error`."""


class _JsonLine(logging.Formatter):
    """Our own records are JSON already; a library's becomes it, whatever its text and its traceback hold."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        # A role is the main module of its process: what it ended for is what `last_words` looks for.
        if record.name.startswith("mooring.") or record.name == "__main__":
            return text
        moment = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        level = record.levelname.lower()
        return json.dumps({"logger": record.name, "event": text, "level": level, "timestamp": moment})


def to_file(path: Path) -> None:
    """Send this process's log to `path`, which grows to 16 MiB and is kept three times.

    A disk that is full loses log lines and nothing else: logging never raises.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    logging.raiseExceptions = False
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_KEPT_FILES, delay=True)
    handler.setFormatter(_JsonLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # uvicorn would write the address of every WebSocket, in which the arguments of `mooring exec` are.
    for noisy in ("httpx2", "httpcore2", "watchfiles", "alembic", "aiosqlite", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def last_words(path: Path) -> str:
    """What a role's log says last about what it waits for, or why it ended; empty when it says nothing of the kind."""
    for entry in _newest(path):
        if entry.get("level") in ("warning", "error") and (why := entry.get("reason") or entry.get("error")):
            return str(why)[:_LONGEST]
    return ""


def ended_for(path: Path) -> str:
    """When and why a role ended, if that is the last that its log says: it has not begun again since."""
    last = next(_newest(path), {})
    if last.get("event") != ROLE_ENDED:
        return ""
    return f"{str(last.get('timestamp'))[:19]} UTC: {str(last.get('error'))[:_LONGEST]}"


def _newest(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log's end, the newest first."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _END_BYTES))
            lines = log.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):
        try:
            yield json.loads(line)
        except ValueError:
            # The first one is cut off.
            continue


def to_terminal() -> None:
    """Send this process's log to its standard error, for a person, who may go away: logging never raises."""
    lines = Lines(sys.stderr.fileno())
    atexit.register(lines.flush)
    colors = sys.stderr.isatty() and not environment().get("NO_COLOR")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
            lambda _logger, _level, text: f"{text}\n".encode(),
        ],
        logger_factory=lambda *_: lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def to_stdout() -> None:
    """Send this process's log to its standard output, one JSON line an event, by the shortest way there is."""
    lines = Lines(sys.stdout.fileno())
    atexit.register(lines.flush)
    structlog.configure(
        processors=[rendered],
        logger_factory=lambda *_: lines,
        wrapper_class=Logger,
        cache_logger_on_first_use=True,
    )


def errors_only() -> None:
    """For a command that a person runs: the log of single requests would come between the lines of its result."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
