"""Every process of a whole Mooring is killed, alone and all at once: nothing is lost, and states are true again."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support import house
from support.mooring import Mooring, installation
from support.waiting import pause, until


@pytest.fixture(scope="module")
def running() -> Iterator[Mooring]:
    """The installation of all tests: what one of them kills is there again at its end."""
    with installation() as started:
        started.add_light_template()
        yield started


@pytest.fixture
def mooring(running: Mooring) -> Iterator[Mooring]:
    """That installation with one running workspace `steady` from the template `light`, gone afterwards."""
    running.cli("workspace", "create", "steady", "--template", "light", "--wait")
    yield running
    if not running.runs():
        # A test that failed before it had started it again takes no other one with it.
        running.kill_all()
        running.start()
    # The next tests' too, though this one may have started it.
    house.lasting.add(running.pid)
    running.cli("workspace", "delete", "steady", "--yes", "--wait")


def kill(pids: list[int]) -> None:
    """Kill them as nobody can see coming."""
    assert pids, "there is nothing to kill"
    for pid in pids:
        # A child ends by itself as soon as its supervisor is gone.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def shown(mooring: Mooring, name: str = "steady") -> dict[str, Any]:
    """The workspace as the API shows it."""
    document = mooring.json("workspace", "show", name)
    assert isinstance(document, dict)
    return document


def editor(mooring: Mooring, name: str = "steady") -> int:
    """The process id of its editor."""
    (pid,) = mooring.processes("light_editor.py", f"/run/w/{shown(mooring, name)['id']}/")
    return pid


def kinds(mooring: Mooring) -> list[str]:
    """The kinds of the workspace's events."""
    lines = mooring.cli("workspace", "events", "steady", "-o", "json").stdout.splitlines()
    return [json.loads(line)["kind"] for line in lines]


def ready(mooring: Mooring) -> bool:
    """Whether the server says that it is ready."""
    return mooring.status("localhost", "/readyz") == 200


def works(mooring: Mooring) -> None:
    """The main job still works: a new workspace answers at its URL, and goes again."""
    mooring.cli("workspace", "create", "later", "--template", "light", "--wait")
    assert mooring.answers("later")
    mooring.cli("workspace", "delete", "later", "--yes", "--wait")


def test_a_killed_server_costs_no_workspace(mooring: Mooring) -> None:
    """The editor keeps answering while no server runs; the next server adopts it as it is."""
    before = editor(mooring)
    kill(mooring.processes("mooring.server.role server"))
    assert mooring.answers("steady")
    until(lambda: ready(mooring))
    assert editor(mooring) == before
    assert shown(mooring)["phase"] == "running"
    assert kinds(mooring).count("starting") == 1
    works(mooring)


def test_killed_workers_and_masters_come_back_with_all_routes(mooring: Mooring) -> None:
    """A new worker has the table at once; a new master gets it again."""
    kill(mooring.processes("nginx: worker"))
    until(lambda: mooring.answers("steady"))
    kill(mooring.processes("nginx: master"))
    until(lambda: mooring.answers("steady"))
    works(mooring)


def test_a_killed_agent_leaves_nginx_serving(mooring: Mooring) -> None:
    """Nginx goes on with every route; the next agent adopts it, and new routes reach it."""
    masters = mooring.processes("nginx: master")
    kill(mooring.processes("mooring.server.role gateway"))
    assert mooring.answers("steady")
    until(lambda: len(mooring.processes("mooring.server.role gateway")) == 1)
    works(mooring)
    assert mooring.processes("nginx: master") == masters
    # An orphan from now on, below nobody whose end would be seen as its own.
    house.lasting.update(masters)


def test_a_killed_editor_is_started_again_and_the_event_says_so(mooring: Mooring) -> None:
    """The crash is visible, and the workspace runs again."""
    before = editor(mooring)
    kill([before])
    until(lambda: "crashed" in kinds(mooring))
    until(lambda: mooring.answers("steady") and shown(mooring)["phase"] == "running")
    assert editor(mooring) != before


def test_children_end_with_a_killed_supervisor_and_workspaces_do_not(mooring: Mooring) -> None:
    """The next `mooring up` finds its port free and adopts what still runs."""
    before = editor(mooring)
    mooring.kill()
    until(lambda: not mooring.processes("mooring.server.role") and not mooring.processes("nginx:"))
    assert Path(f"/proc/{before}").exists()
    mooring.start()
    until(lambda: mooring.answers("steady"))
    assert editor(mooring) == before
    assert shown(mooring)["phase"] == "running"


def test_everything_is_killed_at_once(mooring: Mooring) -> None:
    """Supervisor, server, agent, nginx, keeper and editor: the next start has the workspace, and it runs again."""
    marker = mooring.home / "workspaces" / shown(mooring)["id"] / "home" / "kept.txt"
    marker.write_text("kept")
    mooring.kill_all()
    mooring.start()
    until(lambda: mooring.answers("steady") and shown(mooring)["phase"] == "running")
    assert marker.read_text() == "kept"
    works(mooring)


def test_a_normal_stop_leaves_nothing_and_the_next_start_brings_it_back(mooring: Mooring) -> None:
    """Ctrl-C ends every process of it; what was wanted stays wanted."""
    assert mooring.stop() == 0
    assert mooring.processes() == []
    mooring.start()
    until(lambda: mooring.answers("steady") and shown(mooring)["phase"] == "running")


@pytest.mark.parametrize("after_s", [0.0, 0.7], ids=["while it is away", "while it begins"])
def test_a_stop_beside_a_killed_server_leaves_nothing(mooring: Mooring, after_s: float) -> None:
    """Only a server stops workspaces: one that had just died, or was not there yet, left them running on."""
    kill(mooring.processes("mooring.server.role server"))
    pause(after_s)
    assert mooring.stop() == 0
    assert mooring.processes() == []
    mooring.start()
    until(lambda: mooring.answers("steady") and shown(mooring)["phase"] == "running")


def test_a_second_start_on_the_same_home_says_who_has_it(mooring: Mooring) -> None:
    """Two servers on one database are refused, with what to type."""
    refused = mooring.cli("up", "--port", str(mooring.port + 1), check=False)
    assert refused.returncode == 5
    assert f"pid {mooring.pid}" in refused.stderr
    assert "mooring down" in refused.stderr
    assert mooring.cli("down").returncode == 0
    assert mooring.stop() == 0
    assert mooring.processes() == []
    mooring.start()
