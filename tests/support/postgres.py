"""A real PostgreSQL on a unix socket, and a database of its own for each test."""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support import house

_WITHIN_S = 60.0
_USER = "postgres"


@dataclass
class Postgres:
    """A running server below `folder`, and how to make databases in it. With `port` it listens on loopback too."""

    folder: Path
    programs: Path
    user: str
    port: int | None = None
    _process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        # No process of it may come by itself in the middle of a test, which would look like one left behind.
        settings = ["fsync=off", "full_page_writes=off", "max_connections=60", "autovacuum=off"]
        settings += [f"listen_addresses={'' if self.port is None else '127.0.0.1'}", f"port={self._port}"]
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                **_as_user(),
            )
        deadline = time.monotonic() + _WITHIN_S
        while self._run("pg_isready", "-h", str(self.folder), check=False).returncode != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise AssertionError("PostgreSQL did not start:\n" + (self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop it at once, connections or not."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_WITHIN_S)
            self._process = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, dropped afterwards."""
        name, server, before = f"t{uuid.uuid4().hex[:12]}", self._process, self._children()
        self._run("createdb", "-h", str(self.folder), name)
        try:
            # Said, where the machine may have a PGPORT of its own.
            yield f"postgresql://{self.user}@/{name}?host={self.folder}&port={self._port}"
        finally:
            self._run("dropdb", "-h", str(self.folder), "--force", "--if-exists", name)
            # A backend outlives its connection by a moment, and would look like a process that the test left behind.
            deadline = time.monotonic() + _WITHIN_S
            while self._process is server and self._children() - before and time.monotonic() < deadline:
                threading.Event().wait(0.005)

    def _children(self) -> set[str]:
        assert self._process is not None
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def make(self) -> None:
        """Make the cluster's files."""
        subprocess.run(["cp", "-a", str(_cluster(self.programs, self.user)), str(self.folder / "data")], check=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
        environment = {"PATH": "/usr/bin:/bin", "PGUSER": self.user, "PGPORT": self._port, "LC_ALL": "C"}
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            capture_output=True,
            check=False,
            timeout=_WITHIN_S,
            env=environment,
            cwd="/",
            **_as_user(),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{program} failed: {done.stderr.decode()}")
        return done

    @property
    def _port(self) -> str:
        return str(self.port or 5432)


def _as_user() -> dict[str, object]:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return {}
    return {"user": _USER, "group": grp.getgrgid(pwd.getpwnam(_USER).pw_gid).gr_name, "extra_groups": []}


@cache
def _cluster(programs: Path, user: str) -> Path:
    """The files of an empty cluster, made once: it takes a second each time."""
    folder = tempfile.TemporaryDirectory(prefix="mrg-pg-", dir="/tmp")
    house.at_end(folder.cleanup)
    if os.geteuid() == 0:
        shutil.chown(folder.name, _USER)
    data = Path(folder.name) / "data"
    words = ["-D", str(data), "-A", "trust", "-U", user, "--no-sync", "-E", "UTF8"]
    done = subprocess.run(
        [str(programs / "initdb"), *words],
        capture_output=True,
        check=False,
        timeout=_WITHIN_S,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        cwd="/",
        **_as_user(),
    )
    assert done.returncode == 0, f"initdb failed: {done.stderr.decode()}"
    return data


@contextmanager
def server(port: int | None = None) -> Iterator[Postgres]:
    """A server in a short folder of its own (sockets have short names), gone afterwards."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path(tempfile.mkdtemp(prefix="mrg-pg-", dir="/tmp"))
    user = _USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
    postgres = Postgres(folder, programs, user, port)
    try:
        postgres.make()
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
