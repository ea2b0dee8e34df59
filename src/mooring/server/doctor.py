"""`mooring doctor`: what is missing, misconfigured or stale on this machine, and what to type about it.

Reads and asks; changes nothing. Each check is one function that yields findings.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mooring.server.embedded import running
from mooring.settings import Home, cache, docker_socket

_LUA_MODULES = (
    ("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
    ("/usr/share/lua/5.1/resty/core.lua", "lua-resty-core"),
    ("/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so", "lua-cjson"),
)
_PROGRAMS = (("nginx", "nginx-core"), ("git", "git"), ("sshd", "openssh-server"), ("ssh", "openssh-client"))
_LITTLE_DISK = 2 * 2**30
_TIMEOUT_S = 2.0


class Verdict(StrEnum):
    """`missing` and `wrong` keep Mooring or a part of it from working; `notice` is worth knowing."""

    good = "ok"
    notice = "notice"
    missing = "missing"
    wrong = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` is what to type, empty when nothing is to be done."""

    verdict: Verdict
    what: str
    detail: str
    remedy: str = ""


def examine(home: Home) -> Iterator[Finding]:
    """Every finding, in the order in which to mend them."""
    yield from _programs()
    yield from _editor()
    yield from _home(home)
    yield from _limits()
    yield from _docker()
    yield from _server(home)


def _programs() -> Iterator[Finding]:
    search = os.pathsep.join([os.defpath, "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin"])
    missing = [package for name, package in _PROGRAMS if shutil.which(name, path=search) is None]
    missing += [package for path, package in _LUA_MODULES if not _somewhere(path)]
    if missing:
        packages = " ".join(missing)
        yield Finding(Verdict.missing, "programs", f"missing: {packages}", f"sudo apt-get install {packages}")
    else:
        yield Finding(Verdict.good, "programs", "nginx with Lua, git, OpenSSH")


def _somewhere(path: str) -> bool:
    # Debian's library folder carries the machine's architecture in its name.
    return Path(path).exists() or any(Path("/usr/lib").glob(f"*-linux-gnu/lua/5.1/{Path(path).name}"))


def _editor() -> Iterator[Finding]:
    program = cache() / "editor/bin/code-server"
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        yield Finding(Verdict.missing, "code-server", f"not at {program}", "make up")
        return
    yield Finding(Verdict.good, "code-server", done.stdout.split(" ", 1)[0])


def _home(home: Home) -> Iterator[Finding]:
    if not home.root.exists():
        yield Finding(Verdict.notice, "home", f"{home.root} is made at the first start", "make up")
        return
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            Verdict.wrong, "home", f"{home.root} cannot be written by you", f"sudo chown -R $USER {home.root}"
        )
        return
    if home.root.stat().st_mode & 0o077:
        yield Finding(Verdict.wrong, "home", f"{home.root} is open to other users", f"chmod 700 {home.root}")
    free = shutil.disk_usage(home.root).free
    if free < _LITTLE_DISK:
        yield Finding(
            Verdict.wrong, "disk", f"{free // 2**20} MiB free below {home.root}", f"du -xh {home.root} | sort -h"
        )
    else:
        yield Finding(Verdict.good, "home", f"{home.root}, {free // 2**30} GiB free")


def _limits() -> Iterator[Finding]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    version = "v2" if unified.exists() else "v1"
    writable = os.geteuid() == 0 or any(
        os.access(path, os.W_OK) for path in (Path("/sys/fs/cgroup") / "memory" / "mooring", _own_cgroup())
    )
    if writable:
        yield Finding(Verdict.good, "limits", f"memory, CPU and process limits by cgroup {version}")
    else:
        yield Finding(
            Verdict.notice,
            "limits",
            f"cgroup {version} cannot be written: workspaces of the process runtime are not limited",
            "systemd-run --user --scope -p Delegate=yes make up",
        )


def _own_cgroup() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return Path("/sys/fs/cgroup") / line.removeprefix("0::/")
    return Path("/nonexistent")


def _docker() -> Iterator[Finding]:
    path = docker_socket()
    status, body = _ask(path, "localhost", "/images/json")
    if status == 0:
        yield Finding(Verdict.notice, "docker", f"no engine answers at {path}: only the process runtime works")
    elif "mooring-workspace" not in body:
        yield Finding(Verdict.notice, "docker", "an engine answers; the workspace image is not built", "make images")
    else:
        yield Finding(Verdict.good, "docker", "an engine answers and has the workspace image")


def _server(home: Home) -> Iterator[Finding]:
    found = running(home)
    if found is None:
        yield Finding(Verdict.notice, "mooring", "does not run", "make up")
        return
    status, body = _ask(home.api_socket, "localhost", "/readyz")
    if status == 0:
        yield Finding(Verdict.wrong, "mooring", f"pid {found.pid} runs, its server does not answer", _log_command(home))
        return
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    if status != http.client.OK:
        yield Finding(Verdict.wrong, "mooring", f"not ready: {_not_ready(document)}", _log_command(home))
    else:
        yield Finding(Verdict.good, "mooring", f"runs, pid {found.pid}")


def _log_command(home: Home) -> str:
    return f"tail {home.logs}/*.log"


def _not_ready(document: object) -> str:
    checks = document.get("checks", {}) if isinstance(document, dict) else {}
    bad = [name for name, check in checks.items() if isinstance(check, dict) and not check.get("ok", True)]
    return ", ".join(bad) or "see /readyz"


def _ask(path: Path, host: str, target: str) -> tuple[int, str]:
    """The status and the body of a GET over a unix socket; status 0 when nobody answers."""
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT_S)
    try:
        client.connect(str(path))
        connection.sock = client
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        client.close()
