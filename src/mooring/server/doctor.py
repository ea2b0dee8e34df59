"""`mooring doctor`: what is missing, misconfigured or stale on this machine, and what to type about it.

Reads and asks; changes nothing. Each check is one function that yields findings.
"""

import errno
import grp
import http.client
import json
import os
import pwd
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mooring.accounts.disk import read_secret
from mooring.errors import MooringError
from mooring.server.embedded import refused, running
from mooring.server.logs import ended_for, last_words
from mooring.server.modules_health import SOURCE, STARTING
from mooring.server.supervisor import account
from mooring.settings import Home, Listen, cache, cgroup_name, docker_host, docker_socket, environment, go_command
from mooring.workspaces.processes.cgroups import CgroupRoot, find, own_cgroups, possible
from mooring.workspaces.templates import BadTemplate, parse

_LUA_MODULES = (
    ("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
    ("/usr/share/lua/5.1/resty/core.lua", "lua-resty-core"),
    ("/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so", "lua-cjson"),
)
_PROGRAMS = (("nginx", "nginx-core"), ("git", "git"), ("sshd", "openssh-server"), ("ssh", "openssh-client"))
EDITOR_VERSION = "4.139.1"
"""The code-server that this Mooring was made and tested with; what the set-up installs."""
_LITTLE_DISK = 2 * 2**30
_LIMITS = ("memory", "cpu", "pids")
_TIMEOUT_S = 5.0
"""Longer than the server waits for a database that is silent before it says so."""
_USER = "mooring"
_MOST_PROBLEMS = 5
"""More of them than fit below each other are one thing that is wrong, usually."""


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
    yield from _home(home)
    yield from _limits(home)
    yield from _terminals(os.fsdecode(Path("/proc/self/mounts").read_bytes()))
    yield from _docker(home)
    yield from _templates(home)
    said = _said(home)
    yield from _server(home, said)
    yield from _modules(home, said)


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
    kept = {name: value for name, value in environment().items() if not name.startswith("XDG_")}
    try:
        # It writes a first configuration into the person's home otherwise, and says so before its version.
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [program, "--version"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                env=kept | {"HOME": folder},
            )
    except (OSError, subprocess.SubprocessError):
        yield Finding(Verdict.missing, "code-server", f"not at {program}", "make up")
        return
    version = done.stdout.strip().rpartition("\n")[2].split(" ", 1)[0]
    if version != EDITOR_VERSION:
        yield Finding(Verdict.wrong, "code-server", f"{version}: stale, this Mooring wants {EDITOR_VERSION}", "make up")
    else:
        yield Finding(Verdict.good, "code-server", version)


def _home(home: Home) -> Iterator[Finding]:
    if not home.root.exists():
        yield Finding(Verdict.notice, "home", f"{home.root} is made at the first start", "make up")
        return
    if (unusable := _unusable(home)) is not None:
        yield unusable
        return
    # Of any other folder this advice would be the end: of /etc, of somebody's own.
    if home.root.stat().st_mode & 0o077 and (home.root / "lock").exists():
        yield Finding(
            Verdict.wrong, "home", f"{home.root} is open to other users", f"chmod 700 {shlex.quote(str(home.root))}"
        )
    free = shutil.disk_usage(home.root).free
    if free < _LITTLE_DISK:
        yield Finding(
            Verdict.wrong,
            "disk",
            f"{free // 2**20} MiB free below {home.root}",
            f"du -xh {shlex.quote(str(home.root))} | sort -h | tail",
        )
    else:
        yield Finding(Verdict.good, "home", f"{home.root}, {free // 2**30} GiB free")


def _unusable(home: Home) -> Finding | None:
    if not home.root.is_dir():
        return Finding(Verdict.wrong, "home", f"{home.root} is no folder: name one with --home or MOORING_HOME")
    if _is_read_only(home.root):
        return Finding(Verdict.wrong, "home", f"{home.root} is on a file system that is read-only now; dmesg says why")
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        if home.root.stat().st_uid != os.geteuid():
            # Given to whoever asks, a Mooring of the machine's would not start any more.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(home.root))
        remedy = f"sudo chown -R $USER {shlex.quote(str(home.root))}"
        return Finding(Verdict.wrong, "home", f"{home.root} cannot be written by you", remedy)
    # One that was begun may be another user's than who asks has in mind; root's is nobody's.
    begun = (home.root / "lock").exists() and home.root.stat().st_uid != 0
    if not begun and (why := _refused(home)) is not None:
        return Finding(Verdict.wrong, "home", why)
    return None


def _refused(home: Home) -> str | None:
    """Why `mooring up` would begin no Mooring in this folder."""
    try:
        return refused(home.root, account(None))
    except MooringError as error:
        return error.detail


def _is_read_only(folder: Path) -> bool:
    """Tried, since a file system that the kernel stopped writing to may still be mounted as a writable one."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return False
    except OSError as error:
        return error.errno == errno.EROFS


def _limits(home: Home) -> Iterator[Finding]:
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


def _terminals(mounts: str) -> Iterator[Finding]:
    """A terminal must belong to the group tty for sshd; without `gid` only root could give it to that group."""
    options = [
        line.split()[3].split(",") for line in mounts.splitlines() if line.split()[1:3] == ["/dev/pts", "devpts"]
    ]
    if options and not any(option.startswith("gid=") for option in options[-1]):
        detail = "/dev/pts is mounted without gid=5: mooring ssh opens no terminal (commands and files work)"
        yield Finding(Verdict.notice, "terminals", detail, "sudo mount -o remount,gid=5,mode=620 /dev/pts")


def _docker(home: Home) -> Iterator[Finding]:
    path = docker_socket(docker_host())
    who = _runs_as(home)
    if who is not None and (barred := _barred(path, who)) is not None:
        yield barred
        return
    status, body = _ask(path, "localhost", "/images/json")
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


def _templates(home: Home) -> Iterator[Finding]:
    for path in sorted(home.templates.glob("*.toml")):
        try:
            parse(path.read_text(encoding="utf-8"), path.name)
        except BadTemplate as error:
            more = f", and {len(error.mistakes) - 1} more" if len(error.mistakes) > 1 else ""
            yield Finding(Verdict.wrong, "template", f"{error.mistakes[0]}{more}", f"nano {shlex.quote(str(path))}")
        except (OSError, UnicodeError) as error:
            yield Finding(Verdict.wrong, "template", f"{path}: {getattr(error, 'strerror', None) or 'must be UTF-8'}")


@dataclass(frozen=True, slots=True)
class _Said:
    """What a Mooring that runs says of itself at `/readyz`; `status` is 0 when its server does not answer."""

    pid: int
    status: int
    document: dict[str, Any]

    @property
    def unseen(self) -> list[dict[str, Any]]:
        """What it must keep seeing and does not. The module proxy is asked itself (`_serving`)."""
        return [each for each in self.document.get("watches", ()) if not each["ok"] and each["name"] != "goproxy"]

    @property
    def modules_start(self) -> bool:
        """Whether the module proxy is within the time that its start usually takes."""
        return any(each["name"] == "goproxy" and each.get("starting") for each in self.document.get("watches", ()))


def _said(home: Home) -> _Said | None:
    """None: no Mooring runs."""
    found = running(home)
    if found is None:
        return None
    status, body = _ask(home.api_socket, "localhost", "/readyz", _token(home))
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return _Said(found.pid, status, document if isinstance(document, dict) else {})


def _server(home: Home, said: _Said | None) -> Iterator[Finding]:
    if said is None:
        yield from _port(Listen())
        yield _at_rest(home)
        return
    yield from _build(said.pid)
    if said.status == 0:
        why = last_words(home.logs / "server.log")
        detail = f"pid {said.pid} runs, its server does not answer" + (f". It said last: {why}" if why else "")
        yield Finding(Verdict.wrong, "mooring", detail, _log_command(home))
        return
    if said.status != http.client.OK:
        bad = ", ".join(each["name"] for each in said.unseen) or "it has just been started"
        yield Finding(Verdict.wrong, "mooring", f"not ready: {bad}", _log_command(home))
    else:
        yield Finding(Verdict.good, "mooring", f"runs, pid {said.pid}")
        yield from _unseen(home, said)
    yield from _problems(said.document)


def _at_rest(home: Home) -> Finding:
    """Of a start that failed the reason, which scrolled away or was nobody's to read.

    With its time: a start since then that failed before its roles began has told its reason on the terminal alone.
    """
    for role in ("server", "gateway"):
        if why := ended_for(home.logs / f"{role}.log"):
            return Finding(Verdict.wrong, "mooring", f"does not run; its {role} ended last at {why}", "make up")
    return Finding(Verdict.notice, "mooring", "does not run", "make up")


def _unseen(home: Home, said: _Said) -> Iterator[Finding]:
    """What Mooring is ready without, and has lost sight of: an engine, a source of routes."""
    if said.unseen:
        detail = "; ".join(f"{each['name']} {_seen(each['age_s'])}" for each in said.unseen)
        yield Finding(Verdict.wrong, "stale", detail, _log_command(home))


def _seen(age_s: float | None) -> str:
    return "was never seen" if age_s is None else f"was last seen {age_s:.0f} s ago"


def _problems(document: dict[str, Any]) -> Iterator[Finding]:
    """What Mooring says is wrong; here too, since `mooring status` comes no further than a certificate that is over."""
    problems = document.get("problems", ())
    # Those of the module proxy are told by `_serving`, with what to type.
    others = [problem for problem in problems if not problem.startswith(SOURCE)]
    told = others[:_MOST_PROBLEMS]
    for problem in told:
        yield Finding(Verdict.wrong, "problem", problem)
    if left := document.get("problem_count", 0) - (len(problems) - len(others)) - len(told):
        what = f"{left} more of them" if told else f"problems with routes, their sources or modules: {left}"
        yield Finding(Verdict.wrong, "problem", what, "mooring status")


def _token(home: Home) -> str | None:
    """The administrator's, with which Mooring says what is wrong and not only that something is."""
    try:
        return read_secret(home.admin_token) or None
    except MooringError:
        return None


def _modules(home: Home, said: _Said | None) -> Iterator[Finding]:
    from mooring.goproxy import team  # noqa: PLC0415 - its libraries are for this check alone

    try:
        wanted = team.read(home.modules_settings)
    except MooringError as error:
        remedy = f"${{EDITOR:-nano}} {shlex.quote(str(home.modules_settings))}"
        yield Finding(Verdict.wrong, "modules", error.detail, remedy)
        return
    if not wanted.enabled:
        yield Finding(Verdict.notice, "modules", f"the module proxy is switched off in {home.modules_settings}")
    elif shutil.which(go_command(cache() / "go")) is None:
        yield Finding(Verdict.missing, "modules", "no go command, which the module proxy needs", "make up")
    elif said is not None:
        yield _serving(home, starting=said.modules_start)


def _serving(home: Home, *, starting: bool) -> Finding:
    status, body = _ask(home.modules_socket, "goproxy", "/-/healthz")
    if status == http.client.OK:
        return Finding(Verdict.good, "modules", "the module proxy serves /goproxy/ of the console's address")
    detail = body.strip() or "the module proxy does not answer"
    if starting and (status == 0 or detail == STARTING):
        return Finding(Verdict.notice, "modules", STARTING)
    return Finding(Verdict.wrong, "modules", detail, f"tail {shlex.quote(str(home.logs / 'goproxy.log'))}")


def _port(listen: Listen) -> Iterator[Finding]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.address, listen.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                detail = f"{listen.port}, the default, is in use by another program"
                yield Finding(Verdict.notice, "port", detail, 'make up ARGS="--port 8081"')


def _build(pid: int) -> Iterator[Finding]:
    """Whether the Mooring that runs is the one that the set-up installed last."""
    try:
        program = Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace"))
    except OSError:
        return
    runs, installed = program.parent.parent, (cache() / "venv").resolve()
    if runs.parent == installed.parent and runs != installed:
        detail = "another build is installed than the one that runs; it takes over with the same options and --replace"
        yield Finding(Verdict.notice, "build", detail, 'make up ARGS="--replace"')


def _log_command(home: Home) -> str:
    return f"tail {shlex.quote(str(home.logs))}/*.log"


def _ask(path: Path, host: str, target: str, token: str | None = None) -> tuple[int, str]:
    """The status and the body of a GET over a unix socket; status 0 when nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT_S)
    try:
        client.connect(str(path))
        connection.sock = client
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        client.close()
