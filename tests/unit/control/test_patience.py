"""Waiting for what is away."""

import pytest

from mooring.control.backoff import Backoff
from mooring.control.patience import until_available
from mooring.errors import Conflict, Unavailable


async def test_what_is_away_is_asked_again() -> None:
    """The result comes once the thing is back."""
    answers = [Unavailable("locked"), Unavailable("locked")]

    async def work() -> str:
        if answers:
            raise answers.pop()
        return "done"

    assert await until_available("a test", work, backoff=Backoff(first=0.001)) == "done"


async def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    """Any other error is the caller's."""

    async def work() -> None:
        raise Conflict("taken")

    with pytest.raises(Conflict, match="taken"):
        await until_available("a test", work)
