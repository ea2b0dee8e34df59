"""The states of a workspace, and its sizes and environment."""

import itertools

import pytest
from pydantic import ValidationError

from mooring.errors import Conflict
from mooring.model.workspace import Desired, Limits, Phase, Spec, Workspace, may_become, quantity_bytes

WORKSPACE = Workspace("a" * 10, "anna", "demo", Spec(template="t"), Desired.running, Phase.pending)


def test_the_way_from_pending_to_stopped() -> None:
    """The main road of the table."""
    phases = [Phase.pending, Phase.starting, Phase.running, Phase.stopping, Phase.stopped]
    assert all(may_become(a, b) for a, b in itertools.pairwise(phases))


def test_every_phase_can_fail() -> None:
    """A failure can be seen at any time."""
    assert all(may_become(phase, Phase.failed) for phase in Phase)


def test_a_stopped_workspace_does_not_run_without_a_start() -> None:
    """Running is only reached from starting."""
    assert [phase for phase in Phase if may_become(phase, Phase.running)] == [Phase.starting]


def test_a_forbidden_transition_is_refused() -> None:
    """The table is enforced where a phase is set."""
    with pytest.raises(Conflict, match="pending workspace cannot become running"):
        WORKSPACE.observed(Phase.running)


def test_the_same_phase_takes_another_reason() -> None:
    """A reason may change while the phase does not."""
    assert WORKSPACE.observed(Phase.pending, "waiting for the engine").reason == "waiting for the engine"


@pytest.mark.parametrize(("text", "size"), [("1Mi", 2**20), ("1.5G", 1_500_000_000), ("2Gi", 2**31), ("4096", 4096)])
def test_quantities(text: str, size: int) -> None:
    """Kubernetes' quantities are read as Kubernetes reads them."""
    assert quantity_bytes(text) == size


@pytest.mark.parametrize("text", ["", "1 Gi", "-1Gi", "1e3", "Gi", "1Gib", "1Ki", "0"])
def test_bad_sizes_name_the_field(text: str) -> None:
    """A size that is none, or smaller than a mebibyte, is refused by the name of its field."""
    with pytest.raises(ValidationError, match="memory"):
        Limits(memory=text)


@pytest.mark.parametrize(
    "environment",
    [
        {"A B": "x"},
        {"1A": "x"},
        {"A": "a\nb"},
        {"A": "a\x00"},
        {"A": "\x1b[2J"},
        {"MOORING_TOKEN": "x"},
        {"LD_PRELOAD": "x"},
        {"A": "x" * 70_000},
    ],
)
def test_a_bad_environment_is_refused(environment: dict[str, str]) -> None:
    """Control characters, reserved names and too much of it never reach a process."""
    with pytest.raises(ValidationError, match="environment"):
        Spec(template="t", environment=environment)


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/a.git",
        "https://user:secret@host.example/a.git",
        "ssh://git@host.example/a.git",
        "https://host.example/../a",
        "https://host.example/a b",
        "--upload-pack=x",
        "file:///etc",
        "https://host.example/a$(id)",
    ],
)
def test_a_bad_repository_is_refused(url: str) -> None:
    """Only the https URL of a repository, without a credential, is cloned."""
    with pytest.raises(ValidationError, match="repository"):
        Spec(template="t", repository=url)


@pytest.mark.parametrize("text", ["9" * 400, "9999999Ti", "\uff11Gi", "1KB", "0.5Mi", "-1Mi", "1e9", "nan", ""])
def test_a_size_that_no_machine_has_is_refused(text: str) -> None:
    """A size is 1Mi to 1048576Ti in plain digits; anything else is a mistake of the caller's, whatever its length."""
    with pytest.raises(ValidationError, match="memory"):
        Limits.model_validate({"memory": text})
