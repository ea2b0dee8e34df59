"""How long the reconciler lets a call of a runtime take, while Mooring runs and while it is being stopped."""

RUNTIME_WITHIN_S = 60.0
FIRST_LOOK_WITHIN_S = 5.0
# Half of a stop's time, and longer than a polite end: what hangs must leave the others their turn.
_STOP_WITHIN_S = 15.0


def call_within_s(*, suspended: bool, seen: bool) -> float:
    """Seconds for a call; `suspended`: Mooring is being stopped, `seen`: something was seen of the workspace."""
    if not suspended:
        return RUNTIME_WITHIN_S
    # Those that nobody has seen must not take the workers from those that run while an engine hangs.
    return _STOP_WITHIN_S if seen else FIRST_LOOK_WITHIN_S
