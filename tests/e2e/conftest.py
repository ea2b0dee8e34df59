"""What the tests of a whole Mooring share."""

from collections.abc import Iterator

import pytest

from support import meanwhile
from support.mooring import Mooring, installation


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of tests that mostly wait."""
    config.addinivalue_line("markers", f"{meanwhile.MARK}(work): what the test is about takes minutes (meanwhile.py)")


@pytest.fixture(scope="session")
def done(request: pytest.FixtureRequest) -> meanwhile.Done:
    """What takes minutes, done for all tests that are about it."""
    return meanwhile.do(request.session.items)


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """A running installation; its workspaces are made from the template `readable`."""
    with installation() as running:
        running.add_readable_template()
        yield running
