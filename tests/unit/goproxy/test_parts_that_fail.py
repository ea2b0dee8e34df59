"""A store that fails in the middle of a file: refused before the first byte, cut off after it."""

from typing import Any

import pytest

from mooring.errors import Unavailable
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.responses import CutOff, Wish, send_blob

SIZE = 2**20


class Failing:
    """A blob that can be read up to a place."""

    size = SIZE
    descriptor = None

    def __init__(self, till: int) -> None:
        self._till = till

    async def read(self, start: int, count: int) -> bytes:
        if start >= self._till:
            raise Unavailable("the storage does not answer")
        return bytes(count)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(("till", "error"), [(0, Unavailable), (1, CutOff)])
async def test_nothing_is_refused_that_has_begun(till: int, error: type[Exception]) -> None:
    """A refusal would be read as a part of the zip."""
    sent: list[Any] = []

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        sent.append(message)

    asked = ask("example.com/x", "v1.0.0", Kind.zip)
    with pytest.raises(error):
        await send_blob(send, asked, Wish(), Failing(till))
    assert len(sent) == 1 + (till > 0)
