"""What Mooring stands on is away for a whole minute: it says so, serves on, and is true again within five seconds."""

import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from support import postgres
from support.meanwhile import Done, waits_for
from support.mooring import Mooring, free_port, installation
from support.waiting import pause, until

AWAY_S = 60.0
TRUE_AGAIN_S = 5.0


def shown(mooring: Mooring, name: str) -> dict[str, Any]:
    """A workspace as the API shows it, {} while it cannot."""
    answer = mooring.ask("GET", f"/api/v1/workspaces?name={name}")
    return answer.json()["items"][0] if answer.is_success else {}


def told(mooring: Mooring, workspace_id: str, kind: str, since: float) -> list[float]:
    """When events of a kind happened, those after `since`."""
    answer = mooring.ask("GET", f"/api/v1/workspaces/{workspace_id}/events?limit=500")
    items = answer.json()["items"] if answer.is_success else []
    times = [datetime.fromisoformat(item["at"]).timestamp() for item in items if item["kind"] == kind]
    return [at for at in times if at >= since]


@contextmanager
def locked(mooring: Mooring) -> Iterator[None]:
    """Another program holds the database's lock."""
    database = sqlite3.connect(mooring.home / "mooring.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        database.rollback()
        database.close()


@contextmanager
def gone(server: postgres.Postgres) -> Iterator[None]:
    """PostgreSQL is killed, and started again."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """The disk has not a byte left."""
    filler = folder / "filler"
    done = subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, text=True, check=False)
    assert "No space left" in done.stderr
    try:
        yield
    finally:
        filler.unlink()


def endure(mooring: Mooring, away: Callable[[], Any]) -> None:
    """One editor serves all the time, another dies in it: what is true is told within five seconds of the end."""
    mooring.add_light_template()
    for name in ("calm", "struck"):
        mooring.cli("workspace", "create", name, "--template", "light", "--wait")
    struck, calm = shown(mooring, "struck")["id"], shown(mooring, "calm")["id"]
    with away():
        began = time.time()
        (pid,) = mooring.processes("light_editor.py", f"/run/w/{struck}/")
        os.kill(pid, signal.SIGKILL)
        while (left := began + AWAY_S - time.time()) > 0:
            assert mooring.answers("calm")
            assert mooring.ask("POST", f"/api/v1/workspaces/{calm}/restart").status_code == 503
            pause(min(left, 5))
    ended = time.time()
    until(lambda: shown(mooring, "struck").get("phase") == "running" and mooring.answers("struck"), TRUE_AGAIN_S)
    until(lambda: told(mooring, struck, "crashed", began - 1), TRUE_AGAIN_S)
    assert min(told(mooring, struck, "crashed", began - 1)) < ended - AWAY_S / 2, "it says when it happened"
    assert shown(mooring, "calm")["phase"] == "running"
    assert mooring.ask("POST", f"/api/v1/workspaces/{calm}/stop").status_code == 202
    until(lambda: shown(mooring, "calm").get("phase") == "stopped")


def sqlite() -> None:
    """SQLite locked by another program."""
    with installation() as mooring:
        endure(mooring, lambda: locked(mooring))


def postgresql() -> None:
    """PostgreSQL killed."""
    with postgres.server() as server, server.database() as url:
        # Started by root, Mooring is another user than PostgreSQL.
        server.folder.chmod(0o711)
        with installation(MOORING_DATABASE=url) as mooring:
            endure(mooring, lambda: gone(server))


def disk() -> None:
    """Not a byte left."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mrg-", dir="/tmp")))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "tmpfs", folder], check=True)
        stack.callback(subprocess.run, ["umount", folder], check=True)
        mooring = Mooring(folder / "home", free_port())
        stack.callback(mooring.stop)
        mooring.start()
        endure(mooring, lambda: full(folder))


def redis() -> None:
    """Redis killed, and back with other addresses."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mrg-", dir="/tmp"))
        ours, other = (free_port() for _ in range(2))
        for name, port in (("ours", ours), ("other", other)):
            site = Path(folder) / name / "ws/abc"
            site.mkdir(parents=True)
            (site / "name").write_text(name)
            web = ["/usr/bin/python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"]
            backend = subprocess.Popen(web, cwd=Path(folder) / name, stderr=subprocess.DEVNULL)
            stack.callback(backend.wait)
            stack.callback(backend.kill)
        port = free_port()
        with installation("--redis", f"redis://127.0.0.1:{port}/0") as mooring:
            with hash_of(port, folder, ours):
                until(lambda: named(mooring) == "ours")
            ended = time.monotonic()
            while time.monotonic() < ended + AWAY_S:
                assert named(mooring) == "ours"
                pause(5)
            assert stale(mooring)
            with hash_of(port, folder, other):
                until(lambda: named(mooring) == "other" and not stale(mooring), TRUE_AGAIN_S)


@contextmanager
def hash_of(port: int, folder: str, address: int) -> Iterator[None]:
    """A Redis in whose hash `abc` is at that port of this machine."""
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    server = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    command = ["redis-cli", "-p", str(port), "hset", "hosts", "abc", f"127.0.0.1:{address}"]
    try:
        until(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0)
        yield
    finally:
        server.kill()
        server.wait()


def named(mooring: Mooring) -> str:
    """Which backend answers behind the field `abc`."""
    headers = {"Host": "ws.localhost", "Authorization": f"Bearer {mooring.token}"}
    answer = httpx2.get(f"http://127.0.0.1:{mooring.port}/ws/abc/name", headers=headers, timeout=10)
    return answer.text if answer.is_success else ""


def stale(mooring: Mooring) -> bool:
    """Whether `/readyz` says that Redis is not seen."""
    watches = {watch["name"]: watch["ok"] for watch in mooring.ask("GET", "/readyz").json()["watches"]}
    return not watches["gateway/local/redis"]


@waits_for(sqlite)
def test_a_minute_without_sqlite_loses_nothing(done: Done) -> None:
    """Another program holds the lock: editors serve, changes are refused, and what happened is told."""
    done(sqlite)


@waits_for(postgresql)
def test_a_minute_without_postgresql_loses_nothing(done: Done) -> None:
    """The same without PostgreSQL."""
    done(postgresql)


@waits_for(disk)
def test_a_minute_without_room_on_the_disk_loses_nothing(done: Done) -> None:
    """The same without a byte left."""
    done(disk)


@waits_for(redis)
def test_a_minute_without_redis_keeps_its_routes(done: Done) -> None:
    """They serve, `/readyz` says that they are old, and new addresses are followed once it is back."""
    done(redis)
