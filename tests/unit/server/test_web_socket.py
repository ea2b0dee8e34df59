"""The socket of the API."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from mooring.errors import Unavailable
from mooring.server.web import Web


async def test_a_socket_that_cannot_be_made_ends_the_server(tmp_path: Path) -> None:
    """A server that cannot be reached says why and ends, so that its supervisor tries again."""
    with pytest.raises(Unavailable, match=r"cannot listen at .*gone/api\.sock: No such file or directory"):
        await Web(FastAPI(), tmp_path / "gone" / "api.sock").run()
