"""Modules on S3-compatible storage: a real server, the real go command, two replicas."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.config import Config
from support.goproxies import running
from support.goupstream import GoUser, Upstream, go
from support.s3 import S3Server, s3_server


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


def test_storage_that_is_gone_is_said(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """When the storage does not answer, that is 503 with the reason, and no absence."""
    with running(config(tmp_path, upstream, storage)) as proxy:
        assert httpx2.get(f"{proxy.url}/-/healthz").status_code == 200
        storage.kill()
        assert httpx2.get(f"{proxy.url}/-/healthz").status_code == 503
        answer = httpx2.get(f"{proxy.url}/example.com/%21big/@v/v1.0.0.mod")
        assert (answer.status_code, "cannot be reached" in answer.text) == (503, True)


def test_wrong_credentials_are_said(tmp_path: Path, upstream: Upstream, storage: S3Server) -> None:
    """Credentials that the storage refuses are an error of the storage, not an empty store."""
    wrong = tmp_path / "wrong"
    wrong.write_text("aws_access_key_id = tester\naws_secret_access_key = guessed\n")
    bucket = replace(storage.bucket, credentials=wrong)
    with running(replace(config(tmp_path, upstream, storage), s3=bucket)) as proxy:
        answer = httpx2.get(f"{proxy.url}/example.com/%21big/@v/v1.0.0.mod")
    assert (answer.status_code, "answered 403" in answer.text) == (503, True)
