"""What the contract suites share: one real PostgreSQL for the session."""

from collections.abc import Iterator

import pytest

from support.postgres import Postgres, server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL."""
    with server() as running:
        yield running
