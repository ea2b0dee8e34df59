"""The world around Mooring breaks: disk, database, port, sources. It says so, and loses nothing."""

import json
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support.meanwhile import Done, waits_for
from support.mooring import Mooring, free_port, installation
from support.waiting import pause, until


@pytest.fixture
def mooring() -> Iterator[Mooring]:
    """A fresh installation with one running workspace `steady`."""
    with installation() as running:
        running.add_light_template()
        running.cli("workspace", "create", "steady", "--template", "light", "--wait")
        yield running


def fill(path: Path) -> None:
    """Write until the disk is full."""
    done = subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4k"], capture_output=True, text=True, check=False)
    assert "No space left" in done.stderr


def stale(mooring: Mooring, name: str) -> bool:
    """Whether `/readyz` says that this watch no longer sees; not before the gateway has told of it."""
    answer = httpx2.get(f"http://127.0.0.1:{mooring.port}/readyz", headers={"Host": "localhost"})
    return any(watch["name"] == name and not watch["ok"] for watch in answer.json()["watches"])


def listed(mooring: Mooring) -> set[tuple[str, str]]:
    """Source and name of every route that `mooring route list` shows."""
    found = mooring.json("route", "list")
    items = found["items"] if isinstance(found, dict) else found
    assert isinstance(items, list)
    return {(item["source"], item["name"]) for item in items}


def test_a_locked_database_is_said_and_waited_for(mooring: Mooring) -> None:
    """While another program locks the database the editors serve and changes are refused; then they go through."""
    database = sqlite3.connect(mooring.home / "mooring.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    try:
        refused = mooring.cli("workspace", "create", "late", "--template", "light", check=False)
        assert refused.returncode == 9
        assert "database" in refused.stderr
        assert mooring.answers("steady")
    finally:
        database.rollback()
        database.close()
    mooring.cli("workspace", "create", "late", "--template", "light", "--wait")
    assert mooring.answers("late")


def test_a_stop_that_the_database_missed_is_made_up_for(mooring: Mooring) -> None:
    """An editor that dies while the database is locked is seen, and its state is true once the lock ends."""
    database = sqlite3.connect(mooring.home / "mooring.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    (pid,) = mooring.processes("light_editor.py", "/run/w/")
    subprocess.run(["kill", "-9", str(pid)], check=True)
    pause(6)
    database.rollback()
    database.close()
    until(lambda: mooring.answers("steady"))
    until(lambda: "crashed" in mooring.cli("workspace", "events", "steady", "-o", "json").stdout)


def test_a_full_disk_refuses_changes_and_keeps_serving() -> None:
    """On a disk without a byte left running editors serve; once there is room again changes go through."""
    folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "tmpfs", folder], check=True)
    mooring = Mooring(folder / "home", free_port())
    try:
        mooring.start()
        mooring.add_light_template()
        mooring.cli("workspace", "create", "steady", "--template", "light", "--wait")
        filler = folder / "filler"
        fill(filler)
        refused = mooring.cli("workspace", "create", "late", "--template", "light", "--wait", check=False)
        assert refused.returncode != 0
        assert mooring.answers("steady")
        filler.unlink()
        until(lambda: mooring.cli("workspace", "list", check=False).returncode == 0)
        mooring.cli("workspace", "delete", "late", "--yes", "--wait", check=False)
        mooring.cli("workspace", "create", "later", "--template", "light", "--wait")
        assert mooring.answers("later")
    finally:
        mooring.stop()
        subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_port_that_is_taken_is_named_with_what_to_type(mooring: Mooring) -> None:
    """A second Mooring on the same port ends at once and says which option helps."""
    other = Mooring(mooring.home.parent / "other", mooring.port)
    refused = other.cli("up", "--port", str(mooring.port), check=False)
    assert refused.returncode == 3
    assert f"127.0.0.1:{mooring.port}" in refused.stderr
    assert "--port" in refused.stderr


def test_a_home_that_cannot_be_written_is_named() -> None:
    """A read-only home ends the start with its path."""
    folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", folder], check=True)
    try:
        refused = Mooring(folder / "home", free_port()).cli("up", "--port", str(free_port()), check=False)
        assert refused.returncode == 3
        assert str(folder / "home") in refused.stderr
        assert "Read-only" in refused.stderr
    finally:
        subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder)


def sources() -> None:
    """Routes of a file and of Redis, and then neither any more."""
    folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    folder.chmod(0o755)
    backend = subprocess.Popen(
        ["/usr/bin/python3", "-m", "http.server", str(port := free_port()), "--bind", "127.0.0.1"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    redis = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(redis_port := free_port()),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ],
        stdout=subprocess.DEVNULL,
    )
    (folder / "ws/abc").mkdir(parents=True)
    routes = folder / "routes.yaml"
    route = {"name": "app", "host": "app.localhost", "backends": [{"address": f"127.0.0.1:{port}"}]}
    routes.write_text(json.dumps({"routes": [route]}))
    try:
        with installation("--routes-file", str(routes), "--redis", f"redis://127.0.0.1:{redis_port}/0") as mooring:
            until(lambda: mooring.status("app.localhost", "/") == 200)
            command = ["redis-cli", "-p", str(redis_port), "hset", "hosts", "abc", f"127.0.0.1:{port}"]
            until(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0)
            until(lambda: mooring.status("ws.localhost", "/ws/abc/") == 200)
            until(lambda: {("file", "app"), ("redis", "abc")} <= listed(mooring))

            routes.write_text("routes: [{name: app, host: '%2f'}]")
            redis.kill()
            redis.wait()
            until(lambda: stale(mooring, "gateway/local/file"), 60)
            until(lambda: stale(mooring, "gateway/local/redis"), 60)
            assert mooring.status("app.localhost", "/") == 200
            assert mooring.status("ws.localhost", "/ws/abc/") == 200
    finally:
        for process in (backend, redis):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@waits_for(sources)
def test_sources_that_go_away_keep_their_last_routes(done: Done) -> None:
    """Routes of a file and of Redis appear within a second, survive their source, and are marked stale."""
    done(sources)
