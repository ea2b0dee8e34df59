"""Whether memory, processors and processes of the process runtime's workspaces are limited, or can be."""

import os
from collections.abc import Iterator
from pathlib import Path

from mooring.server.doctor.findings import Finding, Verdict
from mooring.server.embedded import running
from mooring.settings import Home, cgroup_name
from mooring.workspaces.processes.cgroups import CgroupRoot, find, own_cgroups, possible

_LIMITS = ("memory", "cpu", "pids")


def examine_limits(home: Home) -> Iterator[Finding]:
    """Those in force where Mooring runs, else those that there can be."""
    found = running(home)
    try:
        if found is not None:
            # The supervisor's, which its children have inherited: this command may be in any other.
            yield _held(find(name=cgroup_name(home), pid=str(found.pid)))
        else:
            yield _possible(own_cgroups())
    except OSError:
        # It ended between two looks, or there is no /proc/PID/cgroup.
        yield Finding(Verdict.notice, "limits", "no cgroups: workspaces of the process runtime are not limited")


def _held(root: CgroupRoot | None) -> Finding:
    held = [name for name in _LIMITS if root is not None and name in root.folders]
    missing = [name for name in _LIMITS if name not in held]
    if not missing:
        return Finding(Verdict.good, "limits", "memory, cpu and pids hold, by cgroup")
    detail = f"{', '.join(missing)}: not limited in workspaces of the process runtime. They are where it begins in a "
    detail += "cgroup of its own: with the same options and --replace"
    return Finding(Verdict.notice, "limits", detail, _scope_command('make up ARGS="--replace"'))


def _possible(own: dict[str, Path]) -> Finding:
    unlimited = "workspaces of the process runtime will not be limited"
    if "memory" in own:
        if os.access(own["memory"], os.W_OK):
            return Finding(Verdict.good, "limits", "memory, cpu and pids can be limited by cgroup v1")
        return Finding(Verdict.notice, "limits", f"cgroup v1 is for root alone: {unlimited}")
    if "" not in own:
        return Finding(Verdict.notice, "limits", f"no cgroups are mounted: {unlimited}")
    _, limits = possible(own[""])
    missing = [name for name in _LIMITS if name not in limits]
    if not missing:
        return Finding(Verdict.good, "limits", "memory, cpu and pids can be limited by cgroup v2")
    # cgroups(7): a cgroup with processes of its own cannot limit children.
    detail = f"this terminal's cgroup is not Mooring's own: {unlimited}, unless it starts in one"
    if limits:
        detail = f"{', '.join(missing)}: not to be limited here in workspaces of the process runtime"
    return Finding(Verdict.notice, "limits", detail, _scope_command("make up"))


def _scope_command(start: str) -> str:
    if not Path("/run/systemd/system").is_dir():
        return ""
    return f"systemd-run{'' if os.geteuid() == 0 else ' --user'} --scope -p Delegate=yes {start}"
