"""The record of the nginx that runs, and the end of one that nobody supervises any more."""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mooring.gateway.processes import Process, process, processes, works_in
from mooring.settings import Home

_END_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """The nginx that was started last: its master, and the fingerprint of what it was made from."""

    pid: int
    started: int
    fingerprint: str


def record_path(home: Home) -> Path:
    """Where the record is kept."""
    return home.gateway / "nginx.json"


def write_record(home: Home, record: Record) -> None:
    """Replace the record as a whole."""
    path = record_path(home)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(record)))
    new.replace(path)


def read_record(home: Home) -> Record | None:
    """The record, None when there is none that can be read."""
    try:
        # No link is followed: as root this reads a folder of another user.
        with open(record_path(home), opener=_no_link) as file:
            found = json.load(file)
        return Record(int(found["pid"]), int(found["started"]), str(found["fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def master(home: Home) -> Process | None:
    """The recorded master while it lives."""
    record = read_record(home)
    found = process(record.pid) if record else None
    return found if found and record and found.started == record.started and _ours(found, home) else None


def orphans(home: Home) -> list[Process]:
    """Every living nginx of this home, or of the recorded group: master and workers, or workers without a master.

    It works in the home's folder, which tells also one whose agent was killed before it could record it.
    """
    record = read_record(home)
    group = record.pid if record else None
    ours = (found for found in processes() if _ours(found, home))
    return [found for found in ours if found.group == group or works_in(found.pid, home.gateway)]


def end_leftover_nginx(home: Home) -> None:
    """Kill what is left of an nginx of this home, and wait until its port is free. Nothing there is no error.

    Blocks for at most two seconds: for the supervisor before it binds the port that a leftover would still hold.
    """
    deadline = time.monotonic() + _END_WITHIN_S
    while left := orphans(home):
        for each in left:
            end(each)
        if time.monotonic() > deadline:
            return
        _pause()


def end(found: Process) -> None:
    """Kill this very process; one that is gone is no error."""
    try:
        fd = os.pidfd_open(found.pid)
    except OSError:
        return
    try:
        if process(found.pid) == found:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(fd)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)


def _pause() -> None:
    # The supervisor has no event loop yet when it calls.
    time.sleep(0.01)  # noqa: TID251


def _ours(found: Process, home: Home) -> bool:
    """Whether it is an nginx of the home's owner: a record in the home must not make root kill anything else."""
    try:
        return found.name == "nginx" and found.uid == home.root.stat().st_uid
    except OSError:
        return False
