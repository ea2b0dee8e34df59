"""What the server remembers of its gateways' reports."""

from dataclasses import replace

import pytest
import structlog

from mooring.routes.ports import Revision
from mooring.routes.reports import FORGET_S, Report, Reports
from support.hands import Hands

OWN = "abcdefghij"


def report(
    gateway: str = "one", *, activity: float = 0.0, connections: int = 0, problems: tuple[str, ...] = ()
) -> Report:
    """A report of one workspace's input and connections."""
    return Report(gateway, Revision("e", 1), {}, {OWN: activity}, {OWN: connections}, (1,), 0, "", problems=problems)


@pytest.fixture
def clock() -> Hands:
    """At second 1000."""
    return Hands(1000.0)


def test_input_never_goes_back_and_never_lies_ahead(clock: Hands) -> None:
    """The newest over all gateways counts, but a gateway's clock that is ahead keeps nothing awake."""
    reports = Reports(clock)
    reports.take(report("one", activity=900))
    reports.take(report("two", activity=800))
    assert reports.input_at(OWN) == 900
    reports.take(report("two", activity=5000))
    assert reports.input_at(OWN) == 1000
    clock.seconds += 60
    reports.take(report("two", activity=5000))
    assert reports.input_at(OWN) == 1000
    reports.take(report("two", activity=5030))
    assert reports.input_at(OWN) == 1060


def test_input_is_seen_after_the_clock_was_set_back(clock: Hands) -> None:
    """What was said by the old time hides nothing that is typed by the new one, and is not said anew."""
    reports = Reports(clock)
    clock.slept = 86400
    reports.take(report(activity=clock.now()))
    early, clock.slept = clock.now(), 0.0
    clock.seconds += 60
    reports.take(report(activity=early))
    assert reports.input_at(OWN) == early
    reports.take(report(activity=clock.now()))
    assert reports.input_at(OWN) == clock.now()


def test_what_is_older_than_any_idle_rule_takes_no_memory(clock: Hands) -> None:
    """Workspaces that went long ago are forgotten, those that somebody uses are not."""
    reports = Reports(clock)
    for month in range(24):
        clock.seconds += 32 * 86400
        many = {f"{month:02}{number:08}": clock.seconds for number in range(200)}
        reports.take(replace(report(activity=clock.seconds), activity=many | {OWN: clock.seconds}))
    assert len(reports._input) < 1500
    assert reports.input_at(OWN) == clock.seconds


def test_connections_are_summed_and_a_silent_gateway_is_forgotten(clock: Hands) -> None:
    """Each gateway's newest report counts until it was silent for an hour."""
    reports = Reports(clock)
    reports.take(report("one", connections=5))
    reports.take(report("one", connections=2))
    clock.seconds += FORGET_S / 2
    reports.take(report("two", connections=1))
    assert reports.connections(OWN) == 3
    assert [heard.age_s for heard in reports.heard()] == [FORGET_S / 2, 0]
    clock.seconds += FORGET_S / 2
    assert reports.connections(OWN) == 1


def test_a_problem_is_logged_when_it_begins_and_not_every_two_seconds(clock: Hands) -> None:
    """A full gateway is an error that the control plane sees."""
    reports = Reports(clock)
    with structlog.testing.capture_logs() as logs:
        for problems in (("full",), ("full",), ("full", "redis: away"), (), ("full",)):
            reports.take(report(problems=problems))
    assert [entry["problem"] for entry in logs] == ["full", "redis: away", "full"]
