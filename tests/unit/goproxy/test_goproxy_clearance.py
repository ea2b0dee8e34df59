"""The file by which the gateway decides: it is there whenever the disk takes it, and never out of date."""

import asyncio
import json
from pathlib import Path

import pytest

from mooring.goproxy.clearance import cleared
from mooring.goproxy.config import Config
from mooring.goproxy.policy import Filter
from support.small_disk import small_disk

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


async def test_a_disk_that_became_read_only_ends_nothing(tmp_path: Path) -> None:
    """What cannot be removed either stays, and is written anew once the disk takes it again."""
    rules = tmp_path / "rules"
    rules.write_text("+ example.com\n")
    with small_disk(tmp_path / "home", 1) as disk:
        file = disk.folder / "policy"
        async with cleared(file, Config(tmp_path / "store", filter=rules), Filter(rules)):
            disk.refuse_writes()
            rules.write_text("- example.com/x # no\n")
            await asyncio.sleep(1.2)
            assert marks(file) == ["+"]
            disk.take_writes()
            async with asyncio.timeout(WITHIN_S):
                while marks(file) != ["-"]:
                    await asyncio.sleep(0.02)
        assert list(disk.folder.iterdir()) == []


def marks(file: Path) -> list[str]:
    """The marks of its rules."""
    return [rule["mark"] for rule in json.loads(file.read_bytes())["rules"]]


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")
