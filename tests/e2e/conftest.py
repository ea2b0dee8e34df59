"""One Mooring for the browser's tests, with a template whose terminal can be read."""

from collections.abc import Iterator

import pytest

from support.mooring import Mooring, installation


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """A running installation; its workspaces are made from the template `readable`."""
    with installation() as running:
        running.add_readable_template()
        yield running
