"""`mooring goproxy … -o json|yaml`: the results of work on a store as a program reads them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cli import Done, run
from support.goupstream import Upstream, go, make_zip

A, B = "example.com/a", "example.com/b"


class Shop:
    """A store in front of an upstream with two modules, and a go.mod that needs both."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.folder = folder
        self.upstream = upstream
        self.store = folder / "store"
        self.mod = folder / "go.mod"
        self.mod.write_text(f"module example.com/main\n\ngo 1.16\n\nrequire {A} v1.0.0\nrequire {B} v1.0.0\n")

    async def __call__(self, *arguments: str, store: Path | None = None) -> Done:
        """Run `mooring goproxy ARGUMENTS`."""
        settings = ["--store", store or self.store, "--go", go()]
        network = ["--upstream", self.upstream.url, "--sumdb", self.upstream.sumdb]
        environment = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        command = [sys.executable, "-m", "mooring", "goproxy", *map(str, settings), *network, *arguments]
        return await run(*command, environment=environment)

    async def json(self, *arguments: str, store: Path | None = None, status: int = 0) -> Any:  # noqa: ANN401 - JSON
        """Its document."""
        done = await self(*arguments, "-o", "json", store=store)
        assert done.status == status, done
        return json.loads(done.out)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """With nothing in the store."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish(A, "v1.0.0")
        upstream.publish(B, "v1.0.0")
        yield Shop(tmp_path, upstream)


async def test_a_store_is_filled_checked_and_emptied(shop: Shop) -> None:
    """Each result is one document on standard output, and what is said beside it is not in it."""
    assert await shop.json("warm", str(shop.mod)) == {"files": 6, "here": 6, "failed": []}
    right = {"files": 6, "right": 6, "wrong": 0, "unsure": 0, "findings": []}
    assert await shop.json("verify") == right
    assert yaml.safe_load((await shop("verify", "-o", "yaml")).out) == right
    assert await shop.json("pin", f"{A}@v1.0.0") == {"module": A, "version": "v1.0.0", "pinned": True}
    would = await shop.json("evict", "0", "--dry-run")
    assert [item["version"] for item in would["removed"]] == [f"{B}@v1.0.0"]
    assert would["kept"] == [{"version": f"{A}@v1.0.0", "why": f"pinned by {A}@v1.0.0"}]
    assert (would["dry_run"], would["most"]) == (True, 0)
    assert would["before"] - would["after"] == would["removed"][0]["size"]
    assert await shop.json("evict", "0") == {**would, "dry_run": False}
    assert await shop.json("unpin", f"{A}@v1.0.0") == {"module": A, "version": "v1.0.0", "pinned": False}


async def test_what_failed_is_in_the_document_and_in_the_status(shop: Shop) -> None:
    """A version that cannot be had and a file that is wrong are named in it; the error stays on standard error."""
    del shop.upstream.files[f"{B}/@v/v1.0.0.zip"]
    fetched = await shop.json("warm", str(shop.mod), status=5)
    assert (fetched["files"], fetched["here"]) == (6, 5)
    assert [item["version"] for item in fetched["failed"]] == [f"{B}@v1.0.0"]
    assert fetched["failed"][0]["why"]
    kept = shop.store / f"cache/download/{A}/@v/v1.0.0.zip"
    kept.write_bytes(make_zip(A, "v1.0.0", {"x.go": "package evil\n"}))
    checked = await shop.json("verify", status=5)
    assert (checked["files"], checked["right"], checked["wrong"]) == (5, 4, 1)
    assert [(item["file"], item["unsure"]) for item in checked["findings"]] == [(f"{A}/@v/v1.0.0.zip", False)]


async def test_a_store_is_carried_elsewhere(shop: Shop) -> None:
    """How many files were written, into which file, and how many came over."""
    await shop.json("warm", str(shop.mod))
    tar = shop.folder / "modules.tar"
    written = await shop.json("export", str(tar), A)
    assert (written["file"], written["unproved"]) == (str(tar), 0)
    assert written["files"] >= 3
    assert await shop.json("import", str(tar), store=shop.folder / "other") == {"files": 3, "here": 3, "failed": []}


async def test_keys_and_tokens(shop: Shop) -> None:
    """The key and a new token have names; a token's owner and patterns stand beside it."""
    plain = (await shop("key")).out
    assert await shop.json("key") == {"key": plain.strip()}
    made = await shop.json("token", "ann", "--modules", "git.example.com/x, git.example.com/y")
    assert (made["name"], made["modules"]) == ("ann", ["git.example.com/x", "git.example.com/y"])
    assert len(made["token"]) == 43
    assert await shop.json("revoke", "ann") == {"name": "ann", "tokens": 1}
