"""What the port is told of a keeper's state."""

from mooring.workspaces.processes.orders import observed

STATE = {
    "id": "workspace1",
    "generation": 2,
    "phase": "starting",
    "reason": "",
    "socket": "/run/editor.sock",
    "port": None,
    "limited": ["memory"],
    "unlimited": [],
    "restarts": 0,
}


def test_output_that_waits_is_told_beside_what_failed() -> None:
    """Each failure is a notice, in order; output that waits is the last one, for as long as it does."""
    failed = ("git clone failed", "the memory limit was reached")
    state = {**STATE, "notices": list(failed)}
    assert observed({**state, "waits": ""}).notices == failed
    assert observed({**state, "waits": "output waits: no room"}).notices == (*failed, "output waits: no room")


def test_a_keeper_of_an_older_build_is_seen() -> None:
    """Its state has no list of notices; its workspace is observed as it runs."""
    seen = observed({**STATE, "notice": "git clone failed"})
    assert (seen.id, seen.generation, seen.notices) == ("workspace1", 2, ())
