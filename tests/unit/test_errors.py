"""The table from an error to HTTP and exit status."""

from mooring import errors


def test_every_error_has_an_outcome() -> None:
    """Each class of the tree maps to a status, its subclasses to the nearest row."""
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MooringError)]
    for kind in tree:
        assert 400 <= errors.outcome(kind("x")).http < 600
        assert errors.outcome(kind("x")).exit > 0


def test_codes_are_stable_and_apart() -> None:
    """A client tells errors apart by their code."""
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MooringError)]
    assert len({kind.code for kind in tree}) == len(tree)
