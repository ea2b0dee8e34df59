"""A whole Mooring whose workspaces are containers, through its gateway and its command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import docker
from support.mooring import Mooring, installation
from support.waiting import until


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """An installation that may use the tests' engine, with the workspace image built."""
    engine = docker.shared()
    engine.build_workspace_image()
    with installation(DOCKER_HOST=engine.host) as running:
        yield running
        for workspace_id in ids(running):
            running.cli("workspace", "delete", workspace_id, "--yes", "--wait")


def ids(mooring: Mooring) -> list[str]:
    """The workspaces that exist."""
    listed = mooring.json("workspace", "list")
    items = listed["items"] if isinstance(listed, dict) else listed
    assert isinstance(items, list)
    return [item["name"] for item in items]


def test_a_killed_engine_is_told_and_made_up_for(mooring: Mooring) -> None:
    """Without Docker the rest of Mooring serves; with it back the editor answers again, and the events say why not."""
    mooring.cli("workspace", "create", "kept", "--template", "code-server-docker", "--wait")
    host = mooring.cli("workspace", "url", "kept").stdout.strip().partition("://")[2].partition(":")[0]
    mooring.cli("workspace", "exec", "kept", "--", "sh", "-c", "echo kept > file")
    engine = docker.shared()
    engine.kill()
    try:
        until(lambda: mooring.status(host) != 200)
        assert mooring.status("localhost", "/readyz") == 200
    finally:
        engine.start()
    until(lambda: mooring.status(host) == 200, 60)
    until(lambda: mooring.json("workspace", "show", "kept")["phase"] == "running")  # type: ignore[index,call-overload]
    assert mooring.cli("workspace", "exec", "kept", "--", "cat", "file").stdout == "kept\n"
    events = mooring.cli("workspace", "events", "kept", "-o", "json").stdout
    assert {"silent", "crashed", "waiting", "starting"} & {json.loads(line)["kind"] for line in events.splitlines()[3:]}
    mooring.cli("workspace", "delete", "kept", "--yes", "--wait")


def test_a_container_is_a_workspace_like_any_other(mooring: Mooring) -> None:
    """Created from the shipped template it answers through the gateway, takes commands, stops, and keeps its files."""
    mooring.cli("workspace", "create", "demo", "--template", "code-server-docker", "--wait")
    url = mooring.cli("workspace", "url", "demo").stdout.strip()
    host = url.partition("://")[2].partition(":")[0]
    assert mooring.status(host) == 200
    mooring.cli("workspace", "exec", "demo", "--", "sh", "-c", "echo kept > file; id -u")
    mooring.cli("workspace", "stop", "demo", "--wait")
    assert mooring.status(host) != 200
    mooring.cli("workspace", "start", "demo", "--wait")
    assert mooring.status(host) == 200
    assert mooring.cli("workspace", "exec", "demo", "--", "cat", "file").stdout == "kept\n"
    assert "code-server" in mooring.cli("workspace", "logs", "demo").stdout
    assert not (Path(mooring.home) / "workspaces/owner").exists()
