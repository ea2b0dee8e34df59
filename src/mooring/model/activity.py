"""The idle rule, pure: what counts as activity, and when a workspace would stop.

Connected is not active: an untouched editor tab sends frames all day. Activity is input (seen by the gateway) or
work (seen by the runtime), or a declared keep-awake.
"""

from dataclasses import dataclass

from mooring.model.workspace import IdleRule


@dataclass(frozen=True, slots=True)
class Activity:
    """The last seconds (since the epoch) at which each kind was seen; 0 is never."""

    started_at: float
    input_at: float = 0.0
    work_at: float = 0.0
    awake_until: float = 0.0


def stops_at(activity: Activity, rule: IdleRule) -> float | None:
    """The second at which the workspace would stop, None when it never does."""
    if rule.after_s == 0:
        return None
    last = max(activity.started_at, activity.input_at, activity.work_at)
    return max(last + rule.after_s, activity.awake_until)


def explain(activity: Activity, rule: IdleRule) -> str:
    """Why `stops_at` is what it is, for a person."""
    if rule.after_s == 0:
        return "the idle rule is off"
    if activity.awake_until > max(activity.started_at, activity.input_at, activity.work_at) + rule.after_s:
        return "kept awake on request"
    last = max(activity.started_at, activity.input_at, activity.work_at)
    kind = {activity.input_at: "input", activity.work_at: "work"}.get(last, "start")
    after = f"{rule.after_s} s" if rule.after_s % 60 else f"{rule.after_s // 60} min"
    return f"{after} after the last {kind}"
