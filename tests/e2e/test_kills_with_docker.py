"""Docker and everything of Mooring are killed at once, under containers and processes that run: all is true again."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from support import docker
from support.docker import LIGHT_TEMPLATE, Dockerd
from support.mooring import Mooring, installation
from support.waiting import until

TRUE_AGAIN_S = 5.0
_IN_A_CONTAINER = f"""{LIGHT_TEMPLATE}
[environment]
MOORED_AS = "{{name}}"
"""
CONTAINERS, PROCESSES = ("dock", "pier"), ("hall", "quay")
RUNNING = (*CONTAINERS, *PROCESSES)
STOPPED = {"buoy": "boxed", "rest": "light"}
ENGINE_IS_AWAY = "Docker engine"
"""In every reason that says so: there is none, or it does not answer."""


@pytest.fixture
def mooring(engine: Dockerd) -> Iterator[Mooring]:
    """Two containers and two processes that run, and one of each that was stopped; every one has a file of its own."""
    with installation(DOCKER_HOST=engine.host) as running:
        running.add_light_template()
        running.add_template("boxed", _IN_A_CONTAINER)
        templates = {name: "boxed" if name in CONTAINERS else "light" for name in RUNNING} | STOPPED
        for name, template in templates.items():
            running.cli("workspace", "create", name, "--template", template, "--wait")
            running.cli("workspace", "exec", name, "--", "sh", "-c", f"echo {name} > kept")
        for name in STOPPED:
            running.cli("workspace", "stop", name, "--wait")
        yield running


def shown(mooring: Mooring) -> dict[str, dict[str, Any]]:
    """Every workspace as the API shows it, by name."""
    found = mooring.ask("GET", "/api/v1/workspaces").raise_for_status().json()
    return {item["name"]: item for item in found["items"]}


def phases(mooring: Mooring, *names: str) -> set[str]:
    """The phases of these workspaces."""
    found = shown(mooring)
    return {found[name]["phase"] for name in names}


def answers(mooring: Mooring, *names: str) -> bool:
    """Whether each of these editors answers at its own URL; a container also says whose it is."""
    if any(mooring.status(f"{name}--admin.localhost") != 200 for name in names):
        return False
    return all(moored_as(mooring, name) == name for name in names if name in CONTAINERS)


def is_true(mooring: Mooring) -> bool:
    """Whether what is called running answers, and nothing is said to wait for a Docker that is there."""
    found = shown(mooring)
    waits = [name for name in RUNNING if ENGINE_IS_AWAY in found[name]["reason"]]
    runs = [name for name in RUNNING if found[name]["phase"] == "running"]
    return answers(mooring, *runs) and (not waits or not docker.shared().running)


def moored_as(mooring: Mooring, name: str) -> str:
    """What the container behind the URL of `name` calls itself."""
    headers = {"Host": f"{name}--admin.localhost", "Authorization": f"Bearer {mooring.token}"}
    url = f"http://127.0.0.1:{mooring.port}/environment/MOORED_AS"
    return httpx2.get(url, headers=headers, timeout=10).text


def texts(mooring: Mooring, name: str) -> list[str]:
    """What the events of a workspace say."""
    path = f"/api/v1/workspaces/{shown(mooring)[name]['id']}/events?limit=500"
    found = mooring.ask("GET", path).raise_for_status().json()
    return [item["text"] for item in found["items"]]


def test_everything_and_docker_are_killed_at_once(mooring: Mooring, engine: Dockerd) -> None:
    """Without Docker processes run again and containers are waited for; with it they run again, and nothing is lost."""
    before = {name: texts(mooring, name) for name in (*RUNNING, *STOPPED)}
    mooring.kill_all(engine.pid)
    engine.stop()
    engine.socket.unlink(missing_ok=True)

    mooring.start()
    until(lambda: is_true(mooring), TRUE_AGAIN_S)
    until(lambda: phases(mooring, *PROCESSES) == {"running"} and phases(mooring, *CONTAINERS) == {"starting"})
    assert all(ENGINE_IS_AWAY in shown(mooring)[name]["reason"] for name in CONTAINERS)
    assert not any(answers(mooring, name) for name in CONTAINERS)
    refused = mooring.cli("workspace", "create", "late", "--template", "boxed", check=False)
    assert (refused.returncode, "start one" in refused.stderr) == (9, True), refused.stderr

    engine.start()
    until(lambda: is_true(mooring), TRUE_AGAIN_S)
    until(lambda: phases(mooring, *RUNNING) == {"running"} and answers(mooring, *RUNNING), 60)
    for name in RUNNING:
        now = texts(mooring, name)
        assert now[: len(before[name])] == before[name]
        assert [text for text in now if text.startswith("starting again: ") and "killed" in text]
        assert mooring.cli("workspace", "exec", name, "--", "cat", "kept").stdout == f"{name}\n"
    for name in CONTAINERS:
        assert any(ENGINE_IS_AWAY in text for text in texts(mooring, name))
    for name in STOPPED:
        assert shown(mooring)[name]["phase"] == "stopped"
        assert texts(mooring, name) == before[name]
        mooring.cli("workspace", "start", name, "--wait")
        assert mooring.cli("workspace", "exec", name, "--", "cat", "kept").stdout == f"{name}\n"


def test_an_engine_killed_under_running_workspaces_is_said(mooring: Mooring, engine: Dockerd) -> None:
    """While Docker is away no dead container is called running; the others are, and all are when it is back."""
    engine.kill()
    until(lambda: phases(mooring, *CONTAINERS) == {"starting"})
    assert all(ENGINE_IS_AWAY in shown(mooring)[name]["reason"] for name in CONTAINERS)
    assert phases(mooring, *PROCESSES) == {"running"}
    assert answers(mooring, *PROCESSES)
    engine.start()
    until(lambda: is_true(mooring), TRUE_AGAIN_S)
    until(lambda: phases(mooring, *RUNNING) == {"running"} and answers(mooring, *RUNNING), 60)
    for name in CONTAINERS:
        ends = [text for text in texts(mooring, name) if text.startswith("the editor ended and was started again: ")]
        assert len(ends) == 1
        assert "killed" in ends[0]
        assert mooring.cli("workspace", "exec", name, "--", "cat", "kept").stdout == f"{name}\n"
