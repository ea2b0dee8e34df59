"""What the tests of a whole Mooring share."""

from collections.abc import Iterator

import pytest

from support import docker, meanwhile
from support.docker import Dockerd
from support.mooring import Mooring, installation


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of tests that mostly wait."""
    config.addinivalue_line("markers", f"{meanwhile.MARK}(work): what the test is about takes minutes (meanwhile.py)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of them waits for the work of all."""
    for item in items:
        if item.get_closest_marker(meanwhile.MARK):
            item.add_marker(pytest.mark.timeout(meanwhile.WITHIN_S))


@pytest.fixture(scope="session")
def done(request: pytest.FixtureRequest) -> meanwhile.Done:
    """What takes minutes, done for all tests that are about it."""
    return meanwhile.do(request.session.items)


@pytest.fixture
def engine() -> Iterator[Dockerd]:
    """The tests' engine, which Mooring may use; it runs again afterwards, with nothing of the test's."""
    shared = docker.shared()
    # The guard's rules are set from it.
    shared.build_workspace_image()
    yield shared
    if not shared.running:
        shared.start()
    shared.clear()


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """A running installation; its workspaces are made from the template `readable`."""
    with installation() as running:
        running.add_readable_template()
        yield running
