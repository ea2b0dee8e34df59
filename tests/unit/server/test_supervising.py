"""The supervisor, with real children that write down what happens to them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.server.lifetime import REPLACED
from support import supervised
from support.waiting import WITHIN_S, pause, until


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Supervisors to end after the test."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def _events(folder: Path, event: str) -> list[str]:
    return [role for role, _, what in supervised.told(folder) if what == event]


def _both_run(folder: Path) -> bool:
    return {"server", "gateway"} <= set(_events(folder, "stays"))


def _first(folder: Path, role: str) -> int:
    return next(int(pid) for who, pid, what in supervised.told(folder) if (who, what) == (role, "started"))


def _alive(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_a_child_that_dies_is_started_again_after_pauses(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """A child that always dies is tried again and again, ever more slowly, and the other one is left alone.

    A server has one more life when all is stopped: nobody else stops the workspaces.
    """
    process = supervised.start(tmp_path, server="die")
    started.append(process)
    until(lambda: _events(tmp_path, "started").count("server") >= 3)
    first = len(_events(tmp_path, "started"))
    pause(1.0)
    # 0.1, 0.2, 0.4, 0.8 … seconds: without pauses there would be dozens.
    assert len(_events(tmp_path, "started")) - first < 8
    (tmp_path / "server.behaviour").write_text("stay")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0
    assert "child ended" in errors
    assert _events(tmp_path, "started").count("gateway") == 1
    assert _events(tmp_path, "told") == ["server", "gateway"]


def test_a_killed_child_comes_back_with_the_same_sockets(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """The gateway that follows a killed one serves on the very sockets of the first."""
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    os.kill(_first(tmp_path, "gateway"), signal.SIGKILL)
    until(lambda: len([what for _, _, what in supervised.told(tmp_path) if what.startswith("ports-")]) == 2)
    assert len({what for _, _, what in supervised.told(tmp_path) if what.startswith("ports-")}) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0


def test_a_child_that_cannot_be_started_is_tried_again(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """A program that is away for a moment, or no memory for one: the next try may find it, the other child runs on."""
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    (tmp_path / "python").rename(tmp_path / "away")
    os.kill(_first(tmp_path, "gateway"), signal.SIGKILL)
    assert process.stderr is not None
    while "child not started" not in (line := process.stderr.readline()):
        assert line
    (tmp_path / "away").rename(tmp_path / "python")
    until(lambda: _events(tmp_path, "stays").count("gateway") == 2)
    process.send_signal(signal.SIGTERM)
    # One that never began did not end.
    assert "child ended" not in process.stderr.read()
    assert process.wait(WITHIN_S) == 0
    assert _events(tmp_path, "started").count("server") == 1


def test_it_goes_on_when_nobody_reads_what_it_says(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """A reader of its output that is gone, as that of `mooring up | head`, costs no child and no module proxy."""
    process = supervised.start(tmp_path)
    started.append(process)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    until(lambda: _both_run(tmp_path))
    (tmp_path / "server.behaviour").write_text("ready")
    os.kill(_first(tmp_path, "server"), signal.SIGKILL)
    until(lambda: "goproxy" in _events(tmp_path, "stays"))
    assert _events(tmp_path, "started").count("server") == 2
    process.send_signal(signal.SIGTERM)
    process.wait(WITHIN_S)
    assert _events(tmp_path, "told") == ["server", "goproxy", "gateway"]


def test_with_nohup_it_outlives_its_terminal(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """A hang-up that it was started to ignore ends nothing."""
    process = supervised.start(tmp_path, "nohup")
    started.append(process)
    until(lambda: _both_run(tmp_path))
    process.send_signal(signal.SIGHUP)
    pause(0.5)
    assert _events(tmp_path, "told") == []
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0


def test_a_misconfigured_child_ends_it(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """Another try would find the same settings: all of it ends, with where to look, but for workspaces that run."""
    process = supervised.start(tmp_path, gateway="misconfigured")
    started.append(process)
    _, errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode != 0
    assert "mooring doctor" in errors
    assert _events(tmp_path, "started").count("gateway") == 1
    assert (_events(tmp_path, "replaced"), _events(tmp_path, "told")) == (["server"], [])


def test_one_that_cannot_work_any_more_ends_nothing(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """A server whose database was damaged under it is tried again until that is mended; the gateway serves on."""
    process = supervised.start(tmp_path, server="ready")
    started.append(process)
    until(lambda: "server" in _events(tmp_path, "ready") and _both_run(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    (tmp_path / "server.behaviour").write_text("misconfigured")
    os.kill(_first(tmp_path, "server"), signal.SIGKILL)
    until(lambda: _events(tmp_path, "started").count("server") >= 3)
    (tmp_path / "server.behaviour").write_text("stay")
    until(lambda: _events(tmp_path, "stays").count("server") == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0
    assert _events(tmp_path, "started").count("gateway") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_ends_the_server_first(
    tmp_path: Path, started: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    """The server stops the workspaces while the gateway still answers; the children see SIGTERM whatever came."""
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    process.send_signal(number)
    assert process.wait(WITHIN_S) == 0
    assert _events(tmp_path, "told") == ["server", "gateway"]
    assert _events(tmp_path, "orphaned") == []


def test_a_stop_waits_for_a_server_that_only_begins(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """A signal in the second before it listens would end it with the workspaces running on."""
    process = supervised.start(tmp_path, slowly=True)
    started.append(process)
    until((tmp_path / "begins").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0
    assert "server" in _events(tmp_path, "told")


def test_one_that_is_replaced_says_so_to_its_server(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """The server ends first and knows that workspaces run on; a stop that follows changes nothing."""
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    process.send_signal(REPLACED)
    until(lambda: _events(tmp_path, "replaced"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0
    assert (_events(tmp_path, "replaced"), _events(tmp_path, "told")) == (["server"], ["gateway"])


def test_a_module_proxy_that_cannot_work_ends_nothing(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """It begins once all else is ready, is tried again and again, and ends between server and gateway."""
    process = supervised.start(tmp_path, server="ready", goproxy="misconfigured")
    started.append(process)
    until(lambda: _events(tmp_path, "started").count("goproxy") >= 2)
    (tmp_path / "goproxy.behaviour").write_text("stay")
    until(lambda: _both_run(tmp_path) and "goproxy" in _events(tmp_path, "stays"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0
    order = [(role, what) for role, _, what in supervised.told(tmp_path)]
    assert order.index(("server", "ready")) < order.index(("goproxy", "started"))
    assert _events(tmp_path, "told") == ["server", "goproxy", "gateway"]


def test_without_a_server_that_is_ready_there_is_no_module_proxy(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """The others have the processors until then."""
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    pause(0.3)
    assert "goproxy" not in _events(tmp_path, "started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0


def test_the_children_learn_that_the_supervisor_was_killed(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """However it dies, the lifeline closes: no child is left without a supervisor."""
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    process.kill()
    until(lambda: sorted(_events(tmp_path, "orphaned")) == ["gateway", "server"])
    until(lambda: not any(_alive(pid) for _, pid, _ in supervised.told(tmp_path)))


def test_it_announces_once(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """The first server's line is printed; what a later one says is not: its link would sign in a second time."""
    process = supervised.start(tmp_path, server="ready")
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready http://first\n"
    until(lambda: _both_run(tmp_path))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=WITHIN_S)
    assert output == ""


def test_a_child_gets_only_the_environment_that_is_listed(
    tmp_path: Path, started: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person's shell holds, secrets among it, does not reach the children; nor do arguments show settings."""
    monkeypatch.setenv("A_SECRET", "hidden-in-the-shell")
    process = supervised.start(tmp_path)
    started.append(process)
    until(lambda: _both_run(tmp_path))
    for _, pid, _ in supervised.told(tmp_path):
        assert b"hidden-in-the-shell" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert b"secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0
