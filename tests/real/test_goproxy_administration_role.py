"""The role's administration, with a real upstream and the real go command's files: counts, pins, evictions, rights."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from mooring.errors import Conflict, Unavailable
from mooring.goproxy.administration import Removed
from mooring.goproxy.config import Config
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.remote import RemoteOperations
from mooring.settings import Home
from support import goproxy_roles
from support.administration import EVERYTHING
from support.goproxies import running
from support.goupstream import Fault, GoUser, Upstream, go
from support.modules import short_home

LIB = "example.com/Big/lib"
CHANGES = ("pin", "unpin", "evict")


@pytest.fixture
def home() -> Iterator[Home]:
    """A home of its own."""
    with short_home() as home:
        yield home


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """With a module of two versions."""
    with Upstream(tmp_path / "upstream").serving() as serving:
        for version in ("v1.0.0", "v1.1.0"):
            serving.publish(LIB, version)
        yield serving


@dataclass
class Role:
    """The role in this process: its administration, and a client at its front door with a token."""

    home: Home
    ask: RemoteOperations
    client: httpx2.AsyncClient

    async def get(self, module: str, version: str, kind: Kind = Kind.zip) -> int:
        """Ask for a file as a workspace does; the status, once what was answered is kept."""
        name = ask(module, version, kind).name
        status = (await self.client.get(f"/{name}")).status_code
        async with asyncio.timeout(20):
            while status == 200 and kind is Kind.zip and not self.file(f"{name}hash").exists():
                await asyncio.sleep(0.02)
        return status

    def file(self, name: str) -> Path:
        """A file of the store."""
        return self.home.modules / "cache/download" / name

    def has(self, version: str) -> bool:
        """Whether the zip of a version is in the store."""
        return self.file(ask(LIB, version, Kind.zip).name).exists()


@asynccontextmanager
async def role(home: Home, upstream: Upstream, *more: str) -> AsyncIterator[Role]:
    """The role, until the end of the block."""
    home.modules_settings.write_text(goproxy_roles.wanted(upstream, *more))
    async with (
        goproxy_roles.role(home) as it,
        RemoteOperations(home.modules_admin_socket, where="see its log") as administration,
    ):
        async with asyncio.timeout(30):
            while not await _ready(administration):
                await asyncio.sleep(0.05)
        it.client.base_url = httpx2.URL(f"http://x{it.token('ann', '*')}")
        yield Role(home, administration, it.client)


async def _ready(administration: RemoteOperations) -> bool:
    try:
        return (await administration.overview(EVERYTHING)).problem == ""
    except Unavailable:
        return False


async def test_what_was_fetched_is_seen_with_its_hash(home: Home, upstream: Upstream) -> None:
    """Versions, sizes, the verified hash, who pulled, the hit rate; and a failure with its cause."""
    async with role(home, upstream) as it:
        assert [await it.get(LIB, "v1.0.0", kind) for kind in (Kind.info, Kind.mod, Kind.zip, Kind.info)] == [200] * 4
        upstream.faults[ask(LIB, "v1.1.0", Kind.zip).name] = Fault(body=b"<html>")
        assert await it.get(LIB, "v1.1.0") >= 500
        detail = await it.ask.module(EVERYTHING, LIB, "", 10)
        (version,) = [item for item in detail.versions if item.zip]
        assert (version.version, version.hash.startswith("h1:"), version.vouched_by) == (
            "v1.0.0",
            True,
            "sum.test.example",
        )
        assert [(pull.subject, pull.requests) for pull in await it.ask.pulls(LIB)] == [("ann", 5)]
        seen = await it.ask.overview(EVERYTHING)
        assert seen.hit_rate == 0.25
        (failure,) = seen.failures
        assert (failure.what, failure.times) == (f"{LIB}@v1.1.0", 1)
        assert failure.why


async def test_counts_outlive_the_role(home: Home, upstream: Upstream) -> None:
    """After a restart, and after new settings, who pulled what and since when is still there."""
    async with role(home, upstream) as it:
        await it.get(LIB, "v1.0.0")
        since = (await it.ask.overview(EVERYTHING)).counted_since
    async with role(home, upstream, 'max_size = "1G"') as it:
        seen = await it.ask.overview(EVERYTHING)
        assert (seen.counted_since, seen.outcomes["miss"], seen.max_bytes) == (since, 1, 2**30)
        assert (await it.ask.pulls(LIB))[0].requests == 1


async def test_an_evicted_version_comes_back(home: Home, upstream: Upstream) -> None:
    """What the upstream still offers goes, and is fetched again; pinned and vanished versions stay with the reason."""
    async with role(home, upstream) as it:
        assert [await it.get(LIB, version) for version in ("v1.0.0", "v1.1.0")] == [200, 200]
        await it.ask.pin(LIB, "v1.1.0")
        done = await it.ask.evict(LIB, "", dry_run=False)
        assert [item.version for item in done.removed] == ["v1.0.0"]
        assert [item.version for item in done.refused] == ["v1.1.0"]
        assert (it.has("v1.0.0"), it.has("v1.1.0")) == (False, True)
        assert await it.get(LIB, "v1.0.0") == 200
        assert it.has("v1.0.0")
        del upstream.files[ask(LIB, "v1.0.0", Kind.zip).name]
        with pytest.raises(Conflict, match=r"v1\.0\.0 stays: "):
            await it.ask.evict(LIB, "v1.0.0", dry_run=False)
        assert await it.get(LIB, "v1.0.0") == 200
    async with role(home, upstream) as it:
        with pytest.raises(Conflict, match="pinned"):
            await it.ask.evict(LIB, "v1.1.0", dry_run=False)


async def test_a_module_that_became_private_is_never_evicted(home: Home, upstream: Upstream) -> None:
    """Only the notary vouches for it, so it might not come back as it was."""
    async with role(home, upstream) as it:
        await it.get(LIB, "v1.0.0")
    async with role(home, upstream, 'private = ["example.com/Big"]') as it:
        done = await it.ask.evict(LIB, "", dry_run=False)
        assert done.removed == ()
        assert "only the notary vouches for it" in done.refused[0].why
        assert it.has("v1.0.0")


async def test_no_client_changes_anything(home: Home, upstream: Upstream) -> None:
    """The front door has no such path under any method, with a token that may have everything or with none."""
    async with role(home, upstream) as it:
        await it.get(LIB, "v1.0.0")
        assert home.modules_admin_socket.stat().st_mode & 0o777 == 0o600
        assert it.has("v1.0.0")
        for method in ("GET", "POST", "PUT", "DELETE"):
            for change in (*CHANGES, *(f"-/{change}" for change in CHANGES), "overview", "modules", "-/overview"):
                path = f"/{change}?module={LIB}&version=v1.0.0&dry_run=no"
                assert (await it.client.request(method, path)).status_code in (404, 405), (method, path)
        assert it.has("v1.0.0")
        assert await it.ask.evict(LIB, "v1.0.0", dry_run=True) is not None


def test_the_stand_alone_port_has_no_administration(tmp_path: Path, upstream: Upstream) -> None:
    """Alone there is no such path and no such socket, and the go command is served."""
    config = Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())
    with running(config) as served:
        GoUser(tmp_path / "ann", served.url).download(f"{LIB}@v1.0.0")
        for method in ("GET", "POST"):
            for change in (*CHANGES, *(f"-/{change}" for change in CHANGES), "overview"):
                answer = httpx2.request(method, f"{served.url}/{change}", params={"module": LIB, "dry_run": "no"})
                assert answer.status_code in (404, 405)
        assert (config.root / "cache/download" / ask(LIB, "v1.0.0", Kind.zip).name).exists()
        assert not list(config.root.rglob("*.sock"))
    assert b'"ann"' not in (config.root / "tallies").read_bytes()
    assert LIB.encode() in (config.root / "tallies").read_bytes()


async def test_a_role_that_was_killed_leaves_a_clear_answer(home: Home, upstream: Upstream) -> None:
    """A socket at which nobody listens any more is the same as none: the proxy does not answer, and where to look."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.modules_admin_socket))
    async with RemoteOperations(home.modules_admin_socket, where="see its log") as administration:
        with pytest.raises(Unavailable, match="the module proxy does not answer: see its log"):
            await administration.overview(EVERYTHING)
    async with role(home, upstream) as it:
        await it.get(LIB, "v1.0.0")
        assert (await it.ask.evict(LIB, "v1.0.0", dry_run=True)).removed[0] == Removed("v1.0.0", _size(home))


def _size(home: Home) -> int:
    return (home.modules / "cache/download" / ask(LIB, "v1.0.0", Kind.zip).name).stat().st_size
