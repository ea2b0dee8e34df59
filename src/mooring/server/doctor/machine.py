"""The machine: its programs, the editor, its terminals, the port."""

import errno
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mooring.server.doctor.findings import Finding, Verdict
from mooring.settings import Listen, cache, environment

_LUA_MODULES = (
    ("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
    ("/usr/share/lua/5.1/resty/core.lua", "lua-resty-core"),
    ("/usr/lib/x86_64-linux-gnu/lua/5.1/cjson.so", "lua-cjson"),
)
_PROGRAMS = (("nginx", "nginx-core"), ("git", "git"), ("sshd", "openssh-server"), ("ssh", "openssh-client"))
EDITOR_VERSION = "4.139.1"
"""The code-server that this Mooring was made and tested with; what the set-up installs."""


def examine_programs() -> Iterator[Finding]:
    """Whether what Debian packages bring is there."""
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


def examine_editor() -> Iterator[Finding]:
    """Whether code-server is there, and the release that this Mooring wants."""
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


def examine_terminals(mounts: str) -> Iterator[Finding]:
    """A terminal must belong to the group tty for sshd; without `gid` only root could give it to that group."""
    options = [
        line.split()[3].split(",") for line in mounts.splitlines() if line.split()[1:3] == ["/dev/pts", "devpts"]
    ]
    if options and not any(option.startswith("gid=") for option in options[-1]):
        detail = "/dev/pts is mounted without gid=5: mooring ssh opens no terminal (commands and files work)"
        yield Finding(Verdict.notice, "terminals", detail, "sudo mount -o remount,gid=5,mode=620 /dev/pts")


def examine_port(listen: Listen) -> Iterator[Finding]:
    """Whether Mooring could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.address, listen.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                detail = f"{listen.port}, the default, is in use by another program"
                yield Finding(Verdict.notice, "port", detail, 'make up ARGS="--port 8081"')
