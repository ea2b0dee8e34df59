"""What `mooring doctor` says of a Mooring that runs, or that did."""

import re
import subprocess

from mooring.server.doctor.examination import examine
from mooring.server.doctor.findings import Verdict
from mooring.server.embedded import locked
from mooring.server.logs import last_words
from mooring.server.supervisor import PYTHON, settings_file
from mooring.settings import Home, Installation, Listen
from support.doctor import answering, found_by_doctor
from support.waiting import WITHIN_S


def test_a_server_that_does_not_answer(home: Home) -> None:
    """A supervisor without a server is wrong, with where to read why."""
    with locked(home):
        found = found_by_doctor(home, "mooring")
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert "does not answer" in found.detail
    assert found.remedy == f"tail '{home.logs}'/*.log"


def test_a_server_that_waits_says_for_what(home: Home) -> None:
    """Before its database is there a server answers nobody: its log has why, among lines that say nothing of it."""
    (home.logs / "server.log").write_text(
        'of a cut-off line"}\n'
        '{"event": "task failed", "level": "error", "error": "of earlier"}\n'
        '{"event": "something is away", "level": "warning", "reason": "the database does not answer: wrong password"}\n'
        '{"event": "user created", "level": "info"}\n'
    )
    with locked(home):
        found = found_by_doctor(home, "mooring")
    assert found is not None
    assert found.detail.endswith("does not answer. It said last: the database does not answer: wrong password")


def test_a_server_that_ended_says_why(home: Home) -> None:
    """What it ended for counts, as a process of its own writes it, and not what it waited for an hour ago."""
    (home.logs / "server.log").write_text('{"error": "the disk is full", "level": "warning"}\n')
    home.keys.rmdir()
    home.keys.touch()
    with settings_file(Installation(home, Listen(), home.root / "editor")) as settings:
        command = [*PYTHON, "-m", "mooring.server.role", "server", f"--settings={settings}"]
        subprocess.run(command, pass_fds=(settings,), capture_output=True, timeout=WITHIN_S, check=False)
    assert last_words(home.logs / "server.log") == f"{home.keys}: File exists"
    found = found_by_doctor(home, "mooring")
    assert found is not None
    assert found.verdict is Verdict.wrong
    moment = r"\d{4}-\d\d-\d\dT[\d:]{8}"
    said = rf"does not run; its server ended last at {moment} UTC: {re.escape(str(home.keys))}: File exists"
    assert re.fullmatch(said, found.detail), found.detail
    with (home.logs / "server.log").open("a") as log:
        log.write('{"event": "begun again", "level": "info"}\n')
    found = found_by_doctor(home, "mooring")
    assert found is not None
    assert (found.verdict, found.detail) == (Verdict.notice, "does not run")


def test_a_server_that_is_not_ready(home: Home) -> None:
    """What the server has not seen for too long is named."""
    watches = [
        {"name": "runtime/docker", "age_s": 80.0, "ok": False, "most_s": 30},
        {"name": "database", "ok": True},
        {"name": "goproxy", "age_s": None, "ok": False, "most_s": 30, "starting": True},
    ]
    with locked(home), answering(home.api_socket, "503 Not ready", {"ready": False, "watches": watches}):
        found = found_by_doctor(home, "mooring")
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert found.detail == "not ready: runtime/docker"


def test_a_server_that_is_ready(home: Home) -> None:
    """Nothing is to be typed then."""
    with locked(home), answering(home.api_socket, "200 OK", {"ready": True, "watches": []}):
        found = found_by_doctor(home, "mooring")
    assert found is not None
    assert (found.verdict, found.remedy) == (Verdict.good, "")


def test_what_a_ready_mooring_no_longer_sees(home: Home) -> None:
    """An engine or a source that is away is named with the time; the module proxy is asked itself."""
    watches = [
        {"name": "runtime/docker", "age_s": 80.4, "ok": False, "most_s": 30},
        {"name": "gateway/local/redis", "age_s": None, "ok": False, "most_s": 30},
        {"name": "database", "age_s": 0.1, "ok": True, "most_s": 5},
        {"name": "goproxy", "age_s": None, "ok": False, "most_s": 30},
    ]
    with locked(home), answering(home.api_socket, "200 OK", {"ready": True, "watches": watches}):
        found = found_by_doctor(home, "stale")
    assert found is not None
    assert found.detail == "runtime/docker was last seen 80 s ago; gateway/local/redis was never seen"
    assert found.remedy.startswith("tail ")


def test_what_mooring_says_is_wrong(home: Home) -> None:
    """Each is told, ready or not, as `mooring status` may come less far; of many the first, and where the rest is."""
    document = {"ready": True, "watches": [], "problem_count": 7, "problems": [f"route {n}" for n in range(7)]}
    for status in ("200 OK", "503 Service Unavailable"):
        with locked(home), answering(home.api_socket, status, document):
            found = [finding for finding in examine(home) if finding.what == "problem"]
        assert [(finding.detail, finding.remedy) for finding in found] == [
            *((f"route {n}", "") for n in range(5)),
            ("2 more of them", "mooring status"),
        ]
        assert {finding.verdict for finding in found} == {Verdict.wrong}


def test_what_is_wrong_is_asked_for_with_the_administrators_token(home: Home) -> None:
    """Nobody else is told; without it there is a number, and where they are told is named."""
    told = {"ready": True, "watches": [], "problem_count": 2}
    home.admin_token.touch(0o600)
    for token in ("", "mrg_x"):
        home.admin_token.write_text(token)
        heard: list[bytes] = []
        with locked(home), answering(home.api_socket, "200 OK", told, heard):
            found = found_by_doctor(home, "problem")
        assert (b"Authorization: Bearer mrg_x" in b"".join(heard)) is bool(token)
        assert found is not None
        assert (found.verdict, found.remedy) == (Verdict.wrong, "mooring status")
        assert "modules: 2" in found.detail
