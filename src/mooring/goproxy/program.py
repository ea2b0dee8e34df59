"""A program that is run for what it says: bounded in time and in words, and ended together with all that it started."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring.errors import Unavailable

_MAX_OUTPUT = 8 * 2**20
"""Bytes of each stream; a list of a hundred thousand versions has less."""
_CHUNK = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended; a negative status is the signal that ended it."""

    status: int
    output: bytes
    errors: bytes


async def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    folder: Path,
    within_s: float,
    files: Sequence[int] = (),
) -> Ended:
    """Run it in `folder` until it ends; `files` are open ones that it gets.

    Raises:
        TimeoutError: it did not end in time.
        OSError: it cannot be started.
        Unavailable: it says more than anybody has use for. Its beginning alone is not judged: where a server's words
            end is seen at the end.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        pass_fds=files,
        env=dict(environment),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within_s):
            output, errors = await _said(process)
    finally:
        await _end(process)
    if max(len(output), len(errors)) > _MAX_OUTPUT:
        raise Unavailable(f"the go command says more than {_MAX_OUTPUT} bytes")
    return Ended(process.returncode or 0, output, errors)


async def _said(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """Output and errors of a program until it ends."""
    streams = filter(None, (process.stdout, process.stderr))
    async with asyncio.TaskGroup() as group:
        output, errors = (group.create_task(_bounded_read(process, stream)) for stream in streams)
    _ = await process.wait()
    return output.result(), errors.result()


async def _bounded_read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader) -> bytes:
    said = bytearray()
    while chunk := await stream.read(_CHUNK):
        if len(said) <= _MAX_OUTPUT:
            said += chunk
        else:
            _kill(process)
    return bytes(said)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _kill(process)
        # Its end is not heard of before all that it said is read.
        _ = await process.communicate()


def _kill(process: asyncio.subprocess.Process) -> None:
    """Git and ssh are the go command's children: end all of its session, unless it ended by itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
