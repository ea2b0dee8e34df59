"""What is counted of requests, and what nobody learns from it."""

from mooring.goproxy.names import Kind, ask
from mooring.goproxy.tallies import Tallies
from mooring.goproxy.telemetry import Served, Telemetry


def test_whoever_is_refused_does_not_learn_whether_there_is_one() -> None:
    """A refusal is nobody's pull: it would show in one's own counts where others pull the private module."""
    telemetry = Telemetry(Tallies())
    secret = ask("git.example.com/team/secret", "v1.0.0", Kind.zip)
    telemetry.served(Served(secret, "ann", 200, "hit", 0.1))
    telemetry.served(Served(secret, "eve", 403, "forbidden", 0.1, "it is private"))
    assert telemetry.tallies.pulls[secret.module].subjects == {"ann": 1}
    assert telemetry.tallies.pulls[secret.module].requests == 1
    assert telemetry.tallies.outcomes == {"hit": 1, "forbidden": 1}
