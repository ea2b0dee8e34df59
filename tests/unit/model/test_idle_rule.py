"""When an idle workspace would stop."""

import pytest

from mooring.model.activity import Activity, explain, stops_at
from mooring.model.workspace import IdleRule

RULE = IdleRule(after_s=600)


@pytest.mark.parametrize(
    ("activity", "at", "why"),
    [
        (Activity(100), 700, "start"),
        (Activity(100, input_at=200), 800, "input"),
        (Activity(100, input_at=200, work_at=300), 900, "work"),
        (Activity(100, awake_until=5000), 5000, "kept awake"),
    ],
)
def test_the_last_activity_counts(activity: Activity, at: float, why: str) -> None:
    """Input, work and a declared keep-awake each put the stop off, and the explanation says which."""
    assert stops_at(activity, RULE) == at
    assert why in explain(activity, RULE)


def test_a_rule_that_is_off_never_stops() -> None:
    """Zero seconds is off."""
    assert stops_at(Activity(100), IdleRule(after_s=0)) is None


@pytest.mark.parametrize(("after_s", "text"), [(600, "10 min after"), (45, "45 s after"), (90, "90 s after")])
def test_the_explanation_has_the_rules_own_time(after_s: int, text: str) -> None:
    """A rule of less than a minute is not called none."""
    assert explain(Activity(100), IdleRule(after_s=after_s)).startswith(text)
