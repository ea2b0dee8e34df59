"""Module proxies as processes of their own: ours and its peers, each with a store of its own, all on one upstream."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mooring.settings import cache
from support.goupstream import go
from support.mooring import free_port

_TICK = os.sysconf("SC_CLK_TCK")
_WITHIN_S = 60.0


@dataclass(frozen=True)
class Origin:
    """Where modules come from: a GOPROXY and a GOSUMDB value; `sumdb_url` is where a proxy reaches the database."""

    proxy: str
    sumdb: str
    sumdb_url: str


class Server:
    """A proxy that answers on `port`."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.port = port
        self._process = process
        self._log = log
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _WITHIN_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not listen:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)  # noqa: TID251 - nothing else runs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Seconds of its own and of the processes that it started and that ended."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / _TICK

    def memory(self, what: str) -> float:
        """MB of VmRSS or VmHWM."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


Start = Callable[[Path], Server]
"""Starts a proxy whose store is in a folder."""


@contextmanager
def started(start: Start, folder: Path) -> Iterator[Server]:
    """A proxy until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = start(folder)
    try:
        yield server
    finally:
        server.stop()


def _server(name: str, folder: Path, port: int, command: Sequence[str | Path], settings: Mapping[str, str]) -> Server:
    environment = {
        "PATH": f"{go().parent}:{os.environ['PATH']}",  # noqa: TID251 - of this machine
        "HOME": str(folder),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",
        "GOCACHE": str(folder / "go-build"),
        **settings,
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
    return Server(name, port, process, log)


def ours(*options: str) -> Start:
    """`mooring goproxy serve`; `options` before the command."""

    def start(folder: Path) -> Server:
        port = free_port()
        program = Path(sys.executable).parent / "mooring"
        command = [program, "goproxy", "--store", folder / "store", *options, "serve", "--port", str(port)]
        return _server("mooring", folder, port, command, {})

    return start


def nginx(files: Path) -> Start:
    """Plain nginx that serves a folder, without a log: what HTTP alone costs whoever downloads from it."""

    def start(folder: Path) -> Server:
        port = free_port()
        conf = folder / "nginx.conf"
        conf.write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;\n"
            f"server {{ listen 127.0.0.1:{port}; root {files}; }} }}\n"
        )
        return _server("plain nginx", folder, port, ["nginx", "-e", folder / "error.log", "-c", conf], {})

    return start


def peers(origin: Origin) -> dict[str, Start]:
    """Each as its documentation has it for one upstream, with its store on disk; logs as it has them by default."""
    programs = cache() / "module-proxies"

    def athens(folder: Path) -> Server:
        port = free_port()
        (folder / "store").mkdir(exist_ok=True)
        own = f"GOPROXY={origin.proxy};GOSUMDB={origin.sumdb};GOFLAGS=-modcacherw"
        settings = {
            "ATHENS_PORT": f"127.0.0.1:{port}",
            "ATHENS_STORAGE_TYPE": "disk",
            "ATHENS_DISK_STORAGE_ROOT": str(folder / "store"),
            "ATHENS_GO_BINARY_ENV_VARS": own,
            "ATHENS_LOG_LEVEL": "info",
            "GO_ENV": "production",
        }
        return _server("Athens 0.18.0", folder, port, [programs / "athens"], settings)

    def goproxy(folder: Path) -> Server:
        port = free_port()
        (folder / "tmp").mkdir(exist_ok=True)
        database = f"{origin.sumdb.partition('+')[0]} {origin.sumdb_url}"
        command = [programs / "goproxy", "server", "--address", f"127.0.0.1:{port}", "--cacher-dir", folder / "store"]
        command += ["--temp-dir", folder / "tmp", "--proxied-sumdbs", database]
        settings = {"GOPROXY": origin.proxy, "GOSUMDB": origin.sumdb}
        return _server("goproxy 0.26.1", folder, port, command, settings)

    def goproxyio(folder: Path) -> Server:
        port = free_port()
        # It knows one upstream, and no list of them.
        upstream = origin.proxy.partition(",")[0]
        command = [programs / "goproxyio", "-listen", f"127.0.0.1:{port}", "-cacheDir", folder / "store"]
        return _server("goproxy.io 2.0.7", folder, port, [*command, "-proxy", upstream], {})

    return {"athens": athens, "goproxy": goproxy, "goproxyio": goproxyio}
