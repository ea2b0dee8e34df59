"""What `mooring doctor` says of the module proxy."""

from contextlib import ExitStack

import pytest

from mooring.server.doctor.examination import examine
from mooring.server.doctor.findings import Verdict
from mooring.server.embedded import locked
from mooring.server.modules_health import STARTING
from mooring.settings import Home
from support.doctor import answering, found_by_doctor


def test_a_mistake_in_the_settings_of_modules(home: Home) -> None:
    """It is named with its line, and the file that is to be edited, whether Mooring runs or not."""
    home.modules_settings.write_text("private = ['a b']\n")
    found = found_by_doctor(home, "modules")
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert found.detail.startswith("goproxy.toml:1: private.0: must be a pattern of module paths")
    assert found.remedy == f"${{EDITOR:-nano}} '{home.modules_settings}'"


@pytest.mark.parametrize(
    ("status", "verdict", "detail"),
    [
        ("200 OK", Verdict.good, "the module proxy serves"),
        ("503 Service Unavailable", Verdict.wrong, "the disk takes no more"),
    ],
)
def test_how_the_module_proxy_is(home: Home, status: str, verdict: Verdict, detail: str) -> None:
    """What it says of itself is what doctor says."""
    with locked(home), answering(home.modules_socket, status, "the disk takes no more"):
        found = found_by_doctor(home, "modules")
    assert found is not None
    assert found.verdict is verdict
    assert detail in found.detail


def test_a_problem_of_the_module_proxy_is_told_once(home: Home) -> None:
    """Where there is something to type about it, and in the words that it has for it now; of others none is lost."""
    problems = ["goproxy: the disk takes no more", "goproxy: and another", *(f"route {n}" for n in range(6))]
    document = {"ready": True, "watches": [], "problem_count": 8, "problems": problems}
    with (
        locked(home),
        answering(home.api_socket, "200 OK", document),
        answering(home.modules_socket, "503 Service Unavailable", "the disk takes no more"),
    ):
        found = [finding for finding in examine(home) if finding.what in ("problem", "modules")]
    assert [finding.detail for finding in found if finding.what == "problem"] == [
        *(f"route {n}" for n in range(5)),
        "1 more of them",
    ]
    (modules,) = (finding for finding in found if finding.what == "modules")
    assert "the disk takes no more" in modules.detail
    assert "goproxy.log" in modules.remedy


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("starting", [True, False])
def test_a_module_proxy_that_starts_is_no_fault(home: Home, *, silent: bool, starting: bool) -> None:
    """Within the time that the server gives it, silent or not, it is worth knowing; afterwards it is wrong."""
    watches = [{"name": "goproxy", "age_s": None, "ok": False, "most_s": 30, "starting": starting}]
    with ExitStack() as stack:
        stack.enter_context(locked(home))
        stack.enter_context(answering(home.api_socket, "200 OK", {"ready": True, "watches": watches}))
        if not silent:
            stack.enter_context(answering(home.modules_socket, "503 Service Unavailable", STARTING))
        found = found_by_doctor(home, "modules")
    assert found is not None
    assert found.verdict is (Verdict.notice if starting else Verdict.wrong)
    assert (found.remedy == "") is starting
    assert (STARTING in found.detail) is (starting or not silent)


def test_what_is_wrong_at_the_start_of_the_module_proxy_is_told(home: Home) -> None:
    """The server may have looked a moment before it said so."""
    watches = [{"name": "goproxy", "age_s": None, "ok": False, "most_s": 30, "starting": True}]
    with (
        locked(home),
        answering(home.api_socket, "200 OK", {"ready": True, "watches": watches}),
        answering(home.modules_socket, "503 Service Unavailable", "the disk takes no more"),
    ):
        found = found_by_doctor(home, "modules")
    assert found is not None
    assert found.verdict is Verdict.wrong


def test_a_module_proxy_that_does_not_answer(home: Home) -> None:
    """Its log is where to look, unless it is switched off."""
    with locked(home):
        found = found_by_doctor(home, "modules")
        assert found is not None
        assert (found.verdict, found.detail) == (Verdict.wrong, "the module proxy does not answer")
        assert "goproxy.log" in found.remedy
        home.modules_settings.write_text("enabled = false\n")
        found = found_by_doctor(home, "modules")
    assert found is not None
    assert found.verdict is Verdict.notice
