"""The command line of an administrator, `ada`, against the real application on parts in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.cli import Cli, command_line


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """`mooring`, and the server that it finds."""
    async with command_line(tmp_path) as it:
        yield it
