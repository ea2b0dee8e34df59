"""The file by which the gateway decides: it is there whenever the disk takes it, and never out of date."""

import asyncio
import json
from pathlib import Path

import pytest

from mooring.goproxy.clearance import cleared
from mooring.goproxy.config import Config
from mooring.goproxy.policy import Filter

WITHIN_S = 20.0


async def until_there(file: Path) -> None:
    """Return once the file is there."""
    async with asyncio.timeout(WITHIN_S):
        while not file.exists():
            await asyncio.sleep(0.02)


async def test_it_comes_as_soon_as_the_disk_takes_it(tmp_path: Path) -> None:
    """Where it cannot be written hits are the role's, and the gateway's once it can; nothing is left at the end."""
    file = tmp_path / "run" / "policy"
    async with cleared(file, Config(tmp_path / "store", private=("git.example.com",)), Filter(None)):
        await asyncio.sleep(0.6)
        file.parent.mkdir()
        await until_there(file)
        assert json.loads(file.read_bytes())["private"] == ["git.example.com"]
        file.unlink()
        await until_there(file)
    assert list(file.parent.iterdir()) == []


async def test_new_rules_that_cannot_be_told_take_the_old_ones_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a disk that refuses, the gateway asks the role instead of going by what was."""
    file, rules = tmp_path / "policy", tmp_path / "rules"
    rules.write_text("+ example.com\n")
    async with cleared(file, Config(tmp_path / "store", filter=rules), Filter(rules)):
        await until_there(file)
        with monkeypatch.context() as full:
            full.setattr(Path, "replace", _refuse)
            rules.write_text("- example.com/x # no\n")
            async with asyncio.timeout(WITHIN_S):
                while file.exists():
                    await asyncio.sleep(0.02)
        await until_there(file)
        assert json.loads(file.read_bytes())["rules"][0]["mark"] == "-"


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")
