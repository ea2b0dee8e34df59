"""What the API's tests share."""

from collections.abc import AsyncIterator

import pytest

from support.api import Api, api


@pytest.fixture
async def it() -> AsyncIterator[Api]:
    """The API on a stage."""
    async with api() as made:
        yield made
