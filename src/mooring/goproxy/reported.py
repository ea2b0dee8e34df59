"""Hits that the gateway served without us: it says so by datagrams to a socket that no request can lead to.

A datagram is a JSON list of `[subject, name of the file, times]`; without a subject the name is a kind, and stands for
what the gateway had no room to remember in full.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from mooring.errors import NotFound
from mooring.goproxy.names import Ask, Kind, parse
from mooring.goproxy.telemetry import Telemetry

log = structlog.get_logger(__name__)

_LONGEST = 2**18
_AT_ONCE = 16
"""Datagrams before somebody else's turn."""
_REPORT = TypeAdapter(list[tuple[str | None, str, NonNegativeInt]])


def count(telemetry: Telemetry, report: bytes) -> None:
    """Count what one datagram says.

    Raises:
        ValueError: it is none of ours.
    """
    for subject, name, times in _REPORT.validate_json(report):
        if subject is None:
            telemetry.counted(Kind(name), times)
            continue
        try:
            ask = parse(b"/" + name.encode())
        except NotFound as error:
            raise ValueError(error.detail) from error
        if isinstance(ask, Ask):
            telemetry.served_by_gateway(ask, subject, times)


@contextmanager
def reported(file: Path, telemetry: Telemetry) -> Iterator[None]:
    """Until the end of the block what arrives at the socket `file` is counted."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)  # noqa: FBT003 - socket's own parameter
        file.unlink(missing_ok=True)
        receiver.bind(str(file))
        file.chmod(0o600)
        loop.add_reader(receiver, _receive, receiver, telemetry)
        try:
            yield
        finally:
            _receive(receiver, telemetry)
            loop.remove_reader(receiver)
            # On a disk that became read-only it stays, and leads nowhere; its error would keep the rest from ending.
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _receive(receiver: socket.socket, telemetry: Telemetry) -> None:
    for _ in range(_AT_ONCE):
        try:
            report = receiver.recv(_LONGEST)
        except BlockingIOError:
            return
        try:
            count(telemetry, report)
        except (ValidationError, ValueError) as error:
            log.warning("a report of hits cannot be read", error=str(error))
