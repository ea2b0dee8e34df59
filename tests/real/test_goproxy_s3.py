"""Modules on S3-compatible storage: a real server, the real go command, two replicas."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from mooring.errors import Unavailable
from mooring.goproxy.config import Config
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.s3 import Bucket, S3Store
from mooring.server.goproxy import Served, build
from support.goproxies import get, running
from support.goupstream import GoUser, Upstream, go
from support.loopback import serving
from support.s3 import S3Server, s3_server
from support.small_disk import small_disk


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A module that is read in several parts."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/Big", "v1.0.0", {"x.go": "package x\n", "data": os.urandom(3_000_000)})
        yield served


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[S3Server]:
    """A bucket."""
    with s3_server(tmp_path / "s3") as server:
        yield server


def config(tmp_path: Path, upstream: Upstream, storage: S3Server) -> Config:
    """A replica that keeps its modules there."""
    return Config(tmp_path / "one", s3=storage.bucket, upstream=upstream.url, sumdb=upstream.sumdb, go=go())


def test_replicas_share_what_is_kept(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """What one replica fetched, another one with a folder of its own serves to the go command without any upstream."""
    one = config(tmp_path, upstream, storage)
    with running(one) as proxy:
        assert GoUser(tmp_path / "ann", proxy.url, upstream.sumdb).download("example.com/Big@v1.0.0")["Sum"]
    upstream.asked.clear()
    with running(replace(one, root=tmp_path / "other", upstream="off")) as proxy:
        assert GoUser(tmp_path / "bob", proxy.url, upstream.sumdb).download("example.com/Big@v1.0.0")["Sum"]
        name = "example.com/%21big/@v/v1.0.0.zip"
        part = httpx2.get(f"{proxy.url}/{name}", headers={"Range": "bytes=2000000-2000099"}).content
        assert part == upstream.files["example.com/!big/@v/v1.0.0.zip"][2_000_000:2_000_100]
        assert "example.com/Big" in httpx2.get(f"{proxy.url}/-/catalog").text
    assert not upstream.asked
    assert not (tmp_path / "one/cache/download/example.com").exists()


def evict(one: Config, *, dry_run: bool = False) -> tuple[list[str], dict[str, str]]:
    """Evict everything that may go; what went, and what stays with the reason."""

    async def work() -> tuple[list[str], dict[str, str]]:
        async with build(one) as goproxy:
            done = await goproxy.eviction.run(0, dry_run=dry_run)
        return sorted(item.ask.label for item in done.evicted), done.kept

    return asyncio.run(work())


def test_eviction_from_a_bucket(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """Only zips go, only those that can come back; a private module and a pin stay, and what went comes back."""
    one = config(tmp_path, upstream, storage)
    names = ("gone", "pinned", "secret", "back")
    for name in names:
        upstream.publish(f"example.com/{name}", "v1.0.0")
    with running(one) as proxy:
        for name in names:
            for kind in ("info", "mod", "zip"):
                assert get(proxy, f"example.com/{name}/@v/v1.0.0.{kind}").status_code == 200
            until_kept(proxy, f"example.com/{name}/@v/v1.0.0.zip")
        asyncio.run(proxy.goproxy.pins.add("example.com/pinned"))
        del upstream.files["example.com/gone/@v/v1.0.0.zip"]
        now_private = replace(one, private=("example.com/secret",))
        assert evict(now_private, dry_run=True)[0] == ["example.com/back@v1.0.0"]
        went, stay = evict(now_private)
        assert went == ["example.com/back@v1.0.0"]
        assert stay["example.com/secret@v1.0.0"] == "only the notary vouches for it"
        assert stay["example.com/pinned@v1.0.0"] == "pinned by example.com/pinned"
        assert stay["example.com/gone@v1.0.0"] == "the upstream has it no more"
        upstream.asked.clear()
        for name in names:
            for kind in ("info", "mod"):
                assert get(proxy, f"cached-only/example.com/{name}/@v/v1.0.0.{kind}").status_code == 200
            kept = get(proxy, f"cached-only/example.com/{name}/@v/v1.0.0.zip").status_code
            assert kept == (404 if name == "back" else 200)
        assert not upstream.asked
        assert get(proxy, "example.com/back/@v/v1.0.0.zip").content == upstream.files["example.com/back/@v/v1.0.0.zip"]


async def test_a_limit_holds_in_a_bucket(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """What was read longest ago goes first, and no more than is needed."""
    data = {"x.go": "package x\n", "data": os.urandom(200_000)}
    old, new = (ask(f"example.com/{name}", "v1.0.0", Kind.zip) for name in ("old", "new"))
    for wanted in (old, new):
        upstream.publish(wanted.module, wanted.version, data)
    async with build(config(tmp_path, upstream, storage)) as goproxy:
        for wanted in (old, new):
            await goproxy.proxy.ensure(wanted)
        (await goproxy.proxy.get(old)).close()
        done = await goproxy.eviction.run(300_000)
    assert [item.ask for item in done.evicted] == [new]
    assert done.before - done.after == done.evicted[0].size
    assert done.after <= 300_000


def until_kept(proxy: Served, name: str) -> None:
    """Wait until the store has a file."""
    for _ in range(500):
        if get(proxy, f"cached-only/{name}").status_code == 200:
            return
        threading.Event().wait(0.02)
    raise AssertionError(name)


def test_a_full_bucket_leaves_the_hits(tmp_path: Path, upstream: Upstream) -> None:
    """What is kept is served, what is new is served without being kept, and the health says why; then all is well."""
    small, big = "example.com/small/@v/v1.0.0", "example.com/%21big/@v/v1.0.0"
    upstream.publish("example.com/small", "v1.0.0")
    with small_disk(tmp_path / "disk", 8) as disk, s3_server(disk.folder) as storage:
        with running(config(tmp_path, upstream, storage)) as proxy:
            assert get(proxy, f"{small}.mod").status_code == 200
            disk.fill()
            assert get(proxy, f"{small}.mod", Disable_Module_Fetch="true").status_code == 200
            assert get(proxy, "-/healthz").status_code == 200
            right = upstream.files[big.replace("%21b", "!b") + ".zip"]
            for _ in range(2):
                assert get(proxy, f"{big}.zip").content == right
            assert get(proxy, f"cached-only/{big}.zip").status_code == 404
            health = get(proxy, "-/healthz")
            assert (health.status_code, "nothing can be kept" in health.text) == (503, True)
            disk.clear()
            assert get(proxy, f"{big}.zip").content == right
            until_kept(proxy, f"{big}.zip")
            assert get(proxy, "-/healthz").status_code == 200
        assert list((tmp_path / "one/spool").iterdir()) == []


async def test_the_health_question_costs_little(storage: S3Server) -> None:
    """A storage that answered a moment ago is not asked again."""
    asked: list[str] = []

    async def count(request: httpx2.Request) -> None:
        asked.append(request.method)

    async with httpx2.AsyncClient(event_hooks={"request": [count]}) as http:
        store = S3Store(storage.bucket, http)
        for _ in range(5):
            await store.healthy()
        assert asked == ["GET"]
        storage.kill()
        with pytest.raises(Unavailable):
            await store.put("example.com/x/@v/list", b"v1.0.0\n")
        with pytest.raises(Unavailable):
            await store.healthy()


async def test_a_bucket_that_is_gone_keeps_nothing(tmp_path: Path, storage: S3Server) -> None:
    """It is no absence, what was to be saved stays where it is, and the health says so at once."""
    name, spooled = "example.com/x/@v/v1.0.0.zip", tmp_path / "spooled"
    spooled.write_bytes(b"x")
    async with httpx2.AsyncClient() as http:
        store = S3Store(storage.bucket, http)
        assert await store.open(name) is None
        await store.healthy()
        shutil.rmtree(tmp_path / "s3/objects/modules")
        with pytest.raises(Unavailable, match="NoSuchBucket"):
            await store.open(name)
        with pytest.raises(Unavailable, match="NoSuchBucket"):
            await store.healthy()
        with pytest.raises(Unavailable, match="answered 404"):
            await store.adopt(name, spooled)
        assert spooled.exists()
        with pytest.raises(Unavailable, match="nothing can be kept"):
            await store.healthy()


async def test_a_bad_moment_of_the_storage_fails_no_build(tmp_path: Path) -> None:
    """Where a kept connection ends as it is used, or the storage is busy, it is asked again; a second time is told."""
    credentials = tmp_path / "credentials"
    credentials.write_text("aws_access_key_id = tester\naws_secret_access_key = correct-horse\n")
    script = ["kept", "closed", "kept", "busy", "kept", "busy", "busy"]

    def answer(request: BaseHTTPRequestHandler) -> None:
        how = script.pop(0)
        if how == "closed":
            request.close_connection = True
            return
        request.send_response(206 if how == "kept" else 503)
        request.send_header("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
        request.send_header("Content-Length", "4")
        request.end_headers()
        request.wfile.write(how.encode())

    with serving(answer) as port:
        async with httpx2.AsyncClient() as http:
            store = S3Store(Bucket(f"http://127.0.0.1:{port}/modules", credentials), http)
            for _ in range(3):
                blob = await store.open("example.com/x/@v/v1.0.0.mod")
                assert blob is not None
                assert blob.part == b"kept"
            with pytest.raises(Unavailable, match="answered 503: busy"):
                await store.open("example.com/x/@v/v1.0.0.mod")
    assert not script


def test_storage_that_is_gone_is_said(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """When the storage does not answer, that is 503 with the reason, and no absence."""
    with running(config(tmp_path, upstream, storage)) as proxy:
        assert httpx2.get(f"{proxy.url}/-/healthz").status_code == 200
        storage.kill()
        answer = httpx2.get(f"{proxy.url}/example.com/%21big/@v/v1.0.0.mod")
        assert (answer.status_code, "cannot be reached" in answer.text) == (503, True)
        assert httpx2.get(f"{proxy.url}/-/healthz").status_code == 503


def test_wrong_credentials_are_said(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """Credentials that the storage refuses are an error of the storage, not an empty store."""
    wrong = tmp_path / "wrong"
    wrong.write_text("aws_access_key_id = tester\naws_secret_access_key = guessed\n")
    bucket = replace(storage.bucket, credentials=wrong)
    with running(replace(config(tmp_path, upstream, storage), s3=bucket)) as proxy:
        answer = httpx2.get(f"{proxy.url}/example.com/%21big/@v/v1.0.0.mod")
    assert (answer.status_code, "answered 403" in answer.text) == (503, True)
