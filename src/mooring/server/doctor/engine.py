"""The Docker engine, and whether Mooring's user may use it."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from mooring.server.doctor.asking import ask
from mooring.server.doctor.findings import Finding, Verdict
from mooring.settings import Home, docker_host, docker_socket

_USER = "mooring"


def examine_engine(home: Home) -> Iterator[Finding]:
    """Whether an engine answers the user that Mooring runs as, and has the image."""
    path = docker_socket(docker_host())
    who = _runs_as(home)
    if who is not None and (barred := _barred(path, who)) is not None:
        yield barred
        return
    status, body = ask(path, "localhost", "/images/json")
    if status == 0:
        yield Finding(Verdict.notice, "docker", f"no engine answers at {path}: only the process runtime works")
    elif "mooring-workspace" not in body:
        yield Finding(Verdict.notice, "docker", "an engine answers; the workspace image is not built", "make images")
    else:
        yield Finding(Verdict.good, "docker", "an engine answers and has the workspace image")


def _runs_as(home: Home) -> pwd.struct_passwd | None:
    """Whom Mooring's parts run as: the home's owner, before the first start whom `mooring up` would take."""
    try:
        uid = home.root.stat().st_uid if home.root.exists() else os.geteuid()
        return pwd.getpwnam(_USER) if uid == 0 else pwd.getpwuid(uid)
    except (KeyError, OSError):
        return None


def _barred(path: Path, who: pwd.struct_passwd) -> Finding | None:
    """That `who` may not open the engine's socket, which root and the person who asks perhaps may; else None."""
    try:
        there = path.stat()
    except OSError:
        return None
    groups = os.getgrouplist(who.pw_name, who.pw_gid)
    owns, belongs = there.st_uid == who.pw_uid, there.st_gid in groups
    if there.st_mode & (stat.S_IWUSR if owns else stat.S_IWGRP if belongs else stat.S_IWOTH):
        return None
    try:
        group = grp.getgrgid(there.st_gid).gr_name
    except KeyError:
        group = str(there.st_gid)
    detail = f"the user {who.pw_name}, whom Mooring runs as, may not use the engine: only the process runtime works. "
    detail += f"Members of the group {group} may, which is as much as root"
    return Finding(
        Verdict.notice, "docker", detail, f"sudo usermod -aG {group} {who.pw_name} && mooring down && make up"
    )
