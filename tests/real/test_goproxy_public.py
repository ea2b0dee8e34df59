"""The real go command downloads public modules through our proxy from a local upstream."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.goproxy.config import Config
from mooring.server.goproxy import Served
from support.goproxies import running, wait_for
from support.goupstream import Fault, GoUser, Upstream, go


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A local upstream with a checksum database."""
    with Upstream(tmp_path / "upstream").serving() as served:
        yield served


@pytest.fixture
def proxy(upstream: Upstream, tmp_path: Path) -> Iterator[Served]:
    """Our proxy in front of it."""
    with running(Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())) as served:
        yield served


def user(tmp_path: Path, proxy: Served, upstream: Upstream, name: str = "ann") -> GoUser:
    """A person who verifies against the database, reached through our proxy."""
    return GoUser(tmp_path / name, proxy.url, upstream.sumdb)


def test_go_downloads_a_public_module(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """`go mod download` of a module gets it verified, and the store has it in the layout of the module cache."""
    upstream.publish("example.com/Hello", "v1.0.0")
    found = user(tmp_path, proxy, upstream).download("example.com/Hello@v1.0.0")
    assert found["Version"] == "v1.0.0"
    theirs = tmp_path / "ann" / "modcache/cache/download/example.com/!hello/@v"
    ours = tmp_path / "store/cache/download/example.com/!hello/@v"
    wait_for(ours / "v1.0.0.ziphash")
    for name in ("v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "v1.0.0.ziphash"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_the_second_person_needs_no_upstream(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """What one person downloaded, the next gets without a call to the upstream, database look-ups included."""
    upstream.publish("example.com/x", "v1.0.0")
    user(tmp_path, proxy, upstream).download("example.com/x@v1.0.0")
    upstream.asked.clear()
    user(tmp_path, proxy, upstream, "bob").download("example.com/x@v1.0.0")
    assert not upstream.asked


def test_a_wrong_zip_is_refused(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """A zip whose hash the database contradicts is neither served nor kept, and the reason is shown."""
    upstream.publish("example.com/x", "v1.0.0")
    right = upstream.files["example.com/x/@v/v1.0.0.zip"]
    wrong = upstream.publish("example.com/x", "v1.0.0", {"x.go": "package evil\n"}, recorded=False)
    assert wrong != right
    found = user(tmp_path, proxy, upstream).download("example.com/x@v1.0.0", check=False)
    assert "checksum mismatch" in found["Error"]
    assert not (tmp_path / "store/cache/download/example.com/x/@v/v1.0.0.zip").exists()
    upstream.faults["example.com/x/@v/v1.0.0.zip"] = Fault(body=right)
    assert "Error" not in user(tmp_path, proxy, upstream, "bob").download("example.com/x@v1.0.0")


def test_the_store_serves_as_a_file_proxy(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """The store's folder is itself a GOPROXY: `file://…/cache/download`."""
    upstream.publish("example.com/x", "v1.0.0")
    user(tmp_path, proxy, upstream).download("example.com/x@v1.0.0")
    bob = GoUser(tmp_path / "bob", f"file://{tmp_path}/store/cache/download")
    assert bob.download("example.com/x@v1.0.0")["Version"] == "v1.0.0"
