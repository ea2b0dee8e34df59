"""A store on a file system that is really full."""

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.errors import InvalidInput
from mooring.goproxy import tallies
from mooring.goproxy.audit import Finding, audit
from mooring.goproxy.config import Config
from mooring.goproxy.faults import NoSpace
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.notary import Notary
from mooring.goproxy.service import Lifetimes
from mooring.server.goproxy import build
from mooring.server.goproxy_jobs import export, import_
from support.gitserver import HOST, GitServer
from support.goproxies import get, running
from support.goupstream import Fault, GoUser, Upstream, go
from support.small_disk import SmallDisk, small_disk

SMALL, BIG, HUGE = (f"example.com/{name}/@v/v1.0.0" for name in ("small", "big", "huge"))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """Modules of a few bytes, of 700 KB and of 3 MB."""
    with Upstream(tmp_path / "upstream").serving() as served:
        for name, size in (("small", 10), ("big", 700_000), ("huge", 3_000_000)):
            served.publish(f"example.com/{name}", "v1.0.0", {"x.go": "package x\n", "data": os.urandom(size)})
        yield served


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 8 MB."""
    with small_disk(tmp_path / "disk", 8) as mounted:
        yield mounted


@pytest.fixture
def config(upstream: Upstream, disk: SmallDisk) -> Config:
    """A proxy with its store there, which asks for each list again."""
    store = disk.folder / "store"
    return Config(store, upstream=upstream.url, sumdb=upstream.sumdb, go=go(), lifetimes=Lifetimes(mutable_s=0.0))


async def problems(config: Config) -> list[Finding]:
    """What an audit of the store finds."""
    async with build(replace(config, upstream="off")) as goproxy:
        return [finding async for finding in audit(goproxy.store, goproxy.recorded) if finding.problem]


def test_a_full_disk_leaves_the_hits(upstream: Upstream, disk: SmallDisk, config: Config) -> None:
    """Hits and small files go on, a new zip is 503 with the reason, and with room again everything is as before."""
    spool = config.root / "spool"
    with running(config) as proxy:
        right = get(proxy, f"{BIG}.zip").content
        assert right == upstream.files[f"{BIG}.zip"]
        get(proxy, "example.com/big/@v/list")
        disk.fill()
        assert get(proxy, f"{BIG}.zip").content == right
        assert get(proxy, f"{BIG}.zip", Range="bytes=5-9").content == right[5:10]
        upstream.publish("example.com/big", "v1.1.0")
        assert get(proxy, "example.com/big/@v/list").text == "v1.0.0\nv1.1.0\n"
        for kind in ("info", "mod"):
            assert get(proxy, f"{SMALL}.{kind}").content == upstream.files[f"{SMALL}.{kind}"]
        for name in (SMALL, HUGE):
            refused = get(proxy, f"{name}.zip")
            assert (refused.status_code, "No space left" in refused.text) == (503, True)
        health = get(proxy, "-/healthz")
        assert (health.status_code, "takes no more" in health.text) == (503, True)
        lookup = f"sumdb/{proxy.goproxy.notary.name}/lookup/example.com/small@v1.0.0"
        assert get(proxy, lookup).status_code == 503
        assert list(spool.iterdir()) == []
        disk.clear()
        assert get(proxy, "-/healthz").status_code == 200
        for name in (SMALL, HUGE):
            assert get(proxy, f"{name}.zip").content == upstream.files[f"{name}.zip"]
        assert get(proxy, lookup).status_code == 200
    assert list(spool.iterdir()) == []
    assert asyncio.run(problems(config)) == []


async def test_a_notary_on_a_read_only_disk(disk: SmallDisk) -> None:
    """What is recorded is told, what is new is refused with the reason, and recorded once the disk takes it."""

    async def mod_hash(_module: str, _version: str) -> str:
        return "h1:mod"

    notary = Notary(Ledger(disk.folder, "sum.example"), mod_hash)
    await notary.check("example.com/x", "v1.0.0", "h1:x")
    disk.refuse_writes()
    assert b"h1:x" in await notary.get("lookup/example.com/x@v1.0.0")
    with pytest.raises(NoSpace, match="Read-only file system"):
        await notary.check("example.com/x", "v1.1.0", "h1:x")
    disk.take_writes()
    await notary.check("example.com/x", "v1.1.0", "h1:x")
    assert b"h1:mod" in await notary.get("lookup/example.com/x@v1.1.0")


def test_counts_on_a_full_disk(disk: SmallDisk, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be saved is saved once there is room, and nothing of it is counted twice."""
    monkeypatch.setattr(tallies, "_SAVE_EVERY_S", 0.05)
    monkeypatch.setattr(tallies, "_AGAIN_S", 0.05)
    with running(config) as proxy:
        for number in range(30):
            if number == 10:
                disk.fill()
            if number == 20:
                disk.clear()
            assert get(proxy, f"{SMALL}.mod").status_code == 200
            threading.Event().wait(0.02)
    with running(config) as proxy:
        (pull,) = get(proxy, "-/pulls").json()["pulls"]
        assert (pull["requests"], pull["misses"], pull["subjects"]) == (30, 1, {"everybody": 30})
    assert sorted(path.name for path in config.root.glob("*tallies*")) == ["tallies", "tallies.lock"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_zip_that_does_not_fit(upstream: Upstream, disk: SmallDisk, config: Config, chunked: bool) -> None:  # noqa: FBT001
    """One that is larger than the room left is refused before its first byte, or cut off where nobody said its size."""
    upstream.faults[f"{HUGE}.zip"] = Fault(chunked=chunked)
    with running(config) as proxy:
        disk.fill(leave=1_500_000)
        if chunked:
            with pytest.raises(httpx2.RemoteProtocolError):
                get(proxy, f"{HUGE}.zip")
        else:
            refused = get(proxy, f"{HUGE}.zip")
            assert (refused.status_code, "has no room for" in refused.text) == (503, True)
        assert get(proxy, f"{BIG}.zip").status_code == 200
        assert get(proxy, "-/healthz").status_code == 200
        disk.clear()
        assert get(proxy, f"{HUGE}.zip").content == upstream.files[f"{HUGE}.zip"]
    assert list((config.root / "spool").iterdir()) == []
    assert asyncio.run(problems(config)) == []


def test_a_private_module_on_a_full_disk(tmp_path: Path, disk: SmallDisk, config: Config) -> None:
    """The go command has no room for a clone: 503 with the reason, no absence; what was kept is served."""
    with GitServer(tmp_path / "git").serving() as git:
        git.publish("lib", "v1.0.0")
        git.publish("other", "v1.0.0")
        credentials = git.credentials()
        with running(replace(config, private=(HOST,), credentials=credentials)) as proxy:
            ann = GoUser(tmp_path / "ann", proxy.url)
            assert ann.download(git.module("lib") + "@v1.0.0")["Sum"]
            disk.fill()
            assert GoUser(tmp_path / "bob", proxy.url).download(git.module("lib") + "@v1.0.0")["Sum"]
            refused = ann.download(git.module("other") + "@v1.0.0", check=False)["Error"]
            assert "503" in refused
            assert "no space left" in refused
            disk.clear()
            assert ann.download(git.module("other") + "@v1.0.0")["Sum"]


async def test_archives_on_a_full_disk(tmp_path: Path, disk: SmallDisk) -> None:
    """An export that does not fit leaves the earlier one and all of the room; an import says whose disk is full."""
    kept = tmp_path / "store/cache/download/example.com/x/@v/v1.0.0.zip"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(os.urandom(3_000_000))
    outside = Config(tmp_path / "store", upstream="off", sumdb="off")
    to = disk.folder / "modules.tar"
    to.write_bytes(b"earlier")
    disk.fill(leave=1_000_000)
    with pytest.raises(InvalidInput, match="No space left on device"):
        await export(outside, to, ())
    assert to.read_bytes() == b"earlier"
    assert sorted(path.name for path in disk.folder.iterdir()) == ["filler", "modules.tar"]
    await export(outside, tmp_path / "modules.tar", ())
    inside = Config(disk.folder / "store", upstream="off", sumdb="off")
    with pytest.raises(NoSpace, match="has no room for what"):
        _ = [step async for step in import_(inside, tmp_path / "modules.tar")]
    assert list(inside.root.iterdir()) == []
    disk.refuse_writes()
    with pytest.raises(NoSpace, match="takes nothing that work on it needs: Read-only file system"):
        _ = [step async for step in import_(inside, tmp_path / "modules.tar")]
    disk.take_writes()


async def test_what_fills_the_disk_goes_first(tmp_path: Path, disk: SmallDisk) -> None:
    """Where a killed import took all of the room the next one has it again."""
    store = tmp_path / "store/cache/download/example.com/x/@v"
    store.mkdir(parents=True)
    (store / "v1.0.0.zip").write_bytes(os.urandom(3_000_000))
    left = disk.folder / ".mooring-job-left"
    left.mkdir()
    disk.fill()
    (disk.folder / "filler").rename(left / "filler")
    os.utime(left, (1, 1))
    archive = tmp_path / "modules.tar"
    await export(Config(tmp_path / "store", upstream="off", sumdb="off"), archive, ())
    steps = [step async for step in import_(Config(disk.folder, upstream="off", sumdb="off"), archive)]
    assert ["damaged" in step.problem for step in steps] == [True]
    assert not left.exists()
