"""What the module proxy is tested against: modules made on the fly, an upstream proxy and a checksum database.

All of it is local. The upstream can be told to misbehave; the database is a transparency log that the real go
command accepts, so whatever our client makes of it is compared with what the go command makes of it.
"""

import functools
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mooring.errors import MooringError
from mooring.goproxy import dirhash, tlog
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.names import Kind, ask
from mooring.settings import cache
from support import house
from support.loopback import serving

DATABASE = "sum.test.example"


def go() -> Path:
    """The go command: the one that the set-up installs, else the one in PATH."""
    installed = cache() / "go" / "bin" / "go"
    found = str(installed) if installed.exists() else shutil.which("go")
    assert found, "tools/setup/install test installs Go"
    return Path(found)


def make_zip(module: str, version: str, files: Mapping[str, bytes | str], *, stored: bool = False) -> bytes:
    """A module's zip, as the go command writes one; `stored` saves the time of compressing."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{module}@{version}/{name}", content)
    return out.getvalue()


@dataclass
class Fault:
    """How the upstream answers one path instead; `times` is how often, -1 always."""

    status: int = 200
    body: bytes | None = None
    """None: the right one."""
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    """Close the connection after so many bytes."""
    hang_up: bool = False
    """Close it without any answer."""
    announce: int | None = None
    """The length that is claimed."""
    chunked: bool = False
    """Do not say the length."""
    delay_s: float = 0.0
    piece: int = 65536
    pace: Callable[[int], None] | None = None
    """Called with the bytes sent so far, before each piece."""
    times: int = -1


class Upstream:
    """A module proxy with a checksum database behind `/sumdb/`, on a port of its own."""

    def __init__(self, folder: Path, database: str = DATABASE) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.database = Ledger(folder / "database", database)
        self.database_up = True
        self.database_here = True
        self._lock = threading.Lock()
        self.port = 0
        self.tls: ssl.SSLContext | None = None

    @property
    def sumdb(self) -> str:
        """The value of GOSUMDB."""
        return self.database.signer.verifier.text

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(
        self,
        module: str,
        version: str,
        files: Mapping[str, bytes | str] | None = None,
        *,
        requires: Mapping[str, str] | None = None,
        recorded: bool = True,
        stored: bool = False,
    ) -> bytes:
        """Publish a version and record it in the database; its zip."""
        required = "".join(f"require {path} {wanted}\n" for path, wanted in (requires or {}).items())
        mod = f"module {module}\n\ngo 1.21\n\n{required}"
        content = {"go.mod": mod, **(files or {"x.go": "package x\n\nconst Version = " + json.dumps(version) + "\n"})}
        archive = make_zip(module, version, content, stored=stored)
        base = ask(module, version, Kind.zip).name.removesuffix(".zip")
        mod = content["go.mod"] if isinstance(content["go.mod"], str) else content["go.mod"].decode()
        with self._lock:
            self.files[f"{base}.zip"] = archive
            self.files[f"{base}.mod"] = mod.encode()
            info = b'{"Version":"%s","Time":"2026-01-02T03:04:05Z"}' % version.encode()
            self.files[f"{base}.info"] = info
            if version.count("-") < 2:
                listing = base.rpartition("/")[0] + "/list"
                self.files[listing] = self.files.get(listing, b"") + version.encode() + b"\n"
            if recorded:
                self.record(module, version, archive, mod.encode())
        return archive

    def record(self, module: str, version: str, archive: bytes, mod: bytes) -> None:
        """Record a version's hashes in the database."""
        zip_hash = dirhash.of_zip(io.BytesIO(archive), f"{module}@{version}/")
        text = f"{module} {version} {zip_hash}\n{module} {version}/go.mod {dirhash.of_mod(mod)}\n"
        with self.database.exclusive():
            self.database.append([text.encode()])

    def database_file(self, rest: str) -> bytes | None:
        """A file of the database."""
        if rest == "supported":
            return b""
        if rest == "latest":
            return self.database.head
        if rest.startswith("tile/"):
            return self.database.tile(tlog.parse_tile(rest))
        module, _, version = rest.removeprefix("lookup/").partition("@")
        for number, text in enumerate(self.database.records()):
            if text.startswith(f"{_plain(module)} {_plain(version)} h1:".encode()):
                return f"{number}\n".encode() + text + b"\n" + self.database.head
        return None

    def answer(self, path: str) -> bytes | None:
        """The right answer."""
        if not path.startswith("sumdb/"):
            return self.files.get(path)
        name = f"sumdb/{DATABASE}/"
        return self.database_file(path.removeprefix(name)) if path.startswith(name) else None

    @contextmanager
    def serving(self) -> Iterator["Upstream"]:
        """Serve until the end of the block."""
        with serving(self._serve, port=self.port, tls=self.tls) as self.port:
            yield self

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.lstrip("/"))
        with self._lock:
            self.asked[path] += 1
            self.headers.append(dict(request.headers))
            fault = self._fault(path)
            try:
                right = self.answer(path)
            except MooringError:
                right = None
        if path.startswith("sumdb/") and not (self.database_up and self.database_here):
            fault = Fault(status=404 if self.database_up else 503, body=b"down\n")
        threading.Event().wait(fault.delay_s)
        body = fault.body if fault.body is not None else right
        if body is None:
            fault, body = Fault(status=404), b"not found: " + path.encode() + b"\n"
        _send(request, fault, body)

    def _fault(self, path: str) -> Fault:
        fault = self.faults.get(path)
        if fault is None or fault.times == 0:
            return Fault()
        fault.times -= 1
        return fault


def _send(request: BaseHTTPRequestHandler, fault: Fault, body: bytes) -> None:
    if fault.hang_up:
        request.close_connection = True
        return
    request.send_response(fault.status)
    headers = {"Content-Type": "text/plain; charset=utf-8", **fault.headers}
    for name, value in headers.items():
        request.send_header(name, value)
    length = len(body) if fault.announce is None else fault.announce
    if fault.chunked:
        request.send_header("Transfer-Encoding", "chunked")
    else:
        request.send_header("Content-Length", str(length))
    request.end_headers()
    body = body if fault.cut_at is None else body[: fault.cut_at]
    for at in range(0, len(body), fault.piece):
        if fault.pace is not None:
            fault.pace(at)
        part = body[at : at + fault.piece]
        request.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if fault.chunked else part)
    if fault.chunked:
        request.wfile.write(b"0\r\n\r\n")
    if fault.cut_at is not None or fault.announce is not None:
        request.wfile.flush()
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)


def _plain(text: str) -> str:
    out, upper = "", False
    for letter in text:
        out += letter.upper() if upper else "" if letter == "!" else letter
        upper = letter == "!"
    return out


@functools.cache
def compiled() -> Path:
    """What everybody's go command has compiled, by hash of the sources: the standard library takes 5 s each time."""
    folder = tempfile.TemporaryDirectory(prefix="mrg-compiled-")
    house.at_end(folder.cleanup)
    return Path(folder.name)


@dataclass
class GoUser:
    """A person with the go command, a module cache of their own, and nothing else of this machine's settings."""

    folder: Path
    proxy: str
    sumdb: str = "off"
    extra: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What the go command runs with."""
        # Else the first run of a day leaves a process behind it, and for each of these people it is the first.
        telemetry = self.folder / ".config/go/telemetry"
        telemetry.mkdir(parents=True, exist_ok=True)
        (telemetry / "mode").write_text("off")
        return {
            "PATH": f"{go().parent}:{os.environ['PATH']}",  # noqa: TID251 - a test starts a real program
            "HOME": str(self.folder),
            "GOPATH": str(self.folder / "go"),
            "GOMODCACHE": str(self.folder / "modcache"),
            "GOCACHE": str(compiled()),
            "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local",
            "GOENV": "off",
            "GOPROXY": self.proxy,
            "GOSUMDB": self.sumdb,
            **self.extra,
        }

    def go(self, *arguments: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `go ARGUMENTS`."""
        environment = self.environment()
        done = subprocess.run(
            [go(), *arguments],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"go {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    def download(self, what: str, *, check: bool = True) -> dict[str, Any]:
        """`go mod download -json WHAT` outside any module; what it printed."""
        done = self.go("mod", "download", "-json", what, check=check)
        return dict(json.loads(done.stdout)) if done.stdout.strip() else {"Error": done.stderr}
