"""The whole examination, in the order in which to mend what it finds."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from mooring.errors import MooringError
from mooring.server.doctor.engine import examine_engine
from mooring.server.doctor.findings import Finding, Verdict
from mooring.server.doctor.home import examine_home, examine_templates
from mooring.server.doctor.limits import examine_limits
from mooring.server.doctor.machine import examine_editor, examine_programs, examine_terminals
from mooring.server.doctor.modules import examine_modules
from mooring.server.doctor.running import examine_server, hear
from mooring.settings import Home


def examine(home: Home) -> Iterator[Finding]:
    """Every finding, in the order in which to mend them."""
    yield from examine_programs()
    yield from examine_editor()
    remedy = f"sudo mooring doctor --home {shlex.quote(str(home.root))}"
    try:
        yield from _below(home)
    except PermissionError as error:
        detail = f"{error.filename} is closed to you: ask as the user that runs Mooring, or as root"
        yield Finding(Verdict.wrong, "home", detail, remedy)
    except MooringError as error:
        # Of the lock: whether Mooring runs, on which the rest depends, cannot be known.
        yield Finding(Verdict.wrong, "home", error.detail, remedy)


def _below(home: Home) -> Iterator[Finding]:
    yield from examine_home(home)
    yield from examine_limits(home)
    yield from examine_terminals(os.fsdecode(Path("/proc/self/mounts").read_bytes()))
    yield from examine_engine(home)
    yield from examine_templates(home)
    said = hear(home)
    yield from examine_server(home, said)
    yield from examine_modules(home, said)
