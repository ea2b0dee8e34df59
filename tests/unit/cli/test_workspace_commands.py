"""`mooring workspace` against the real application."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from support.cli import Cli, command_line


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with command_line(tmp_path) as it:
        yield it


async def test_create_and_wait_ends_when_it_runs(cli: Cli) -> None:
    """`create --wait` shows what happens on standard error, and the running workspace on standard output."""
    done = await cli("workspace", "create", "demo", "--template", "light", "--env", "A=b c", "--wait")
    assert done.status == 0, done
    print(done.out, done.err)
    assert "running" in done.out
