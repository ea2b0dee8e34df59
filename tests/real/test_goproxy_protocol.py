"""What the protocol says about modules that are out of the ordinary, by a real upstream and real repositories."""

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy import upstream as upstreams
from mooring.goproxy.config import Config
from mooring.server.goproxy import Served
from support.gitserver import HOST, GitServer
from support.goproxies import get, running, wait_for
from support.goupstream import Fault, GoUser, Upstream, go, make_zip

X = "example.com/x/@v/v1.0.0"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """With one module."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/x", "v1.0.0")
        yield served


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    """Without any repository."""
    with GitServer(tmp_path / "git").serving() as served:
        yield served


@pytest.fixture
def config(tmp_path: Path, upstream: Upstream, git: GitServer) -> Config:
    """A proxy in front of both."""
    files = git.credentials()
    asked = Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())
    return replace(asked, private=(HOST,), credentials=files)


@pytest.fixture
def proxy(config: Config) -> Iterator[Served]:
    """The same, serving."""
    with running(config) as served:
        yield served


def test_a_module_without_tags_has_an_empty_list(upstream: Upstream, git: GitServer, proxy: Served) -> None:
    """A known module is 200 and nothing, also when that is kept; an unknown one is absent where that is proved."""
    upstream.files["example.com/untagged/@v/list"] = b""
    git.publish("untagged", "")
    for module, status in (
        ("example.com/untagged", 200),
        ("example.com/unknown", 404),
        (git.module("untagged"), 200),
        # Whether there is none or we may not have it, version control does not say.
        (git.module("unknown"), 503),
    ):
        for _ in ("cold", "warm"):
            answer = get(proxy, f"{module}/@v/list")
            assert answer.status_code == status, answer.text
            assert status != 200 or answer.content == b""


def test_a_repository_without_go_mod(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """Its go.mod is a line that names it, and its later major versions are incompatible ones."""
    git.publish("old", "")
    git.git("old", "rm", "-q", "go.mod")
    git.git("old", "commit", "-q", "-m", "before there were modules")
    for version in ("v1.2.0", "v2.3.0"):
        git.git("old", "tag", version)
    git.git("old", "push", "-q", "--tags", "origin", "main")
    module = git.module("old")
    for version in ("v1.2.0", "v2.3.0+incompatible"):
        assert get(proxy, f"{module}/@v/{version}.mod").text == f"module {module}\n"
        assert GoUser(tmp_path / "ann", proxy.url).download(f"{module}@{version}")["Version"] == version
    assert get(proxy, f"{module}/@v/v2.3.0.mod").status_code == 404


def test_modules_of_one_repository_share_its_clone(tmp_path: Path, config: Config, git: GitServer) -> None:
    """Two versions and a module in a folder of it are three modules to the go command, and one clone to us."""
    git.publish("many", "v1.0.0")
    below = f"{git.module('many')}/below"
    git.publish("many", "v1.1.0", {"below/go.mod": f"module {below}\n", "below/y.go": "package below\n"})
    git.git("many", "tag", "below/v0.1.0")
    git.git("many", "push", "-q", "--tags", "origin")
    with running(config) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url)
        for wanted in (f"{git.module('many')}@v1.0.0", f"{git.module('many')}@v1.1.0", f"{below}@v0.1.0"):
            assert ann.download(wanted)["Sum"]
    assert len(list((config.root / "vcs/modcache/cache/vcs").glob("*.info"))) == 1


@pytest.mark.parametrize(("redirects", "status"), [(10, 200), (11, 502)])
def test_ten_redirects_are_followed(upstream: Upstream, proxy: Served, redirects: int, status: int) -> None:
    """And no more."""
    upstream.files["at/the/end"] = upstream.files[f"{X}.info"]
    steps = [f"{X}.info", *(f"step/{number}" for number in range(1, redirects)), "at/the/end"]
    for here, there in itertools.pairwise(steps):
        upstream.faults[here] = Fault(status=302, headers={"Location": f"/{there}"}, body=b"")
    assert get(proxy, f"{X}.info").status_code == status


def test_a_module_cache_is_copied_in(tmp_path: Path, upstream: Upstream, config: Config) -> None:
    """An administrator copies a person's download cache into the store; it is served, and nothing of it is wrong."""
    with running(replace(config, root=tmp_path / "elsewhere")) as elsewhere:
        ann = GoUser(tmp_path / "ann", elsewhere.url, upstream.sumdb)
        assert ann.download("example.com/x@v1.0.0")["Sum"]
    shutil.copytree(tmp_path / "ann/modcache/cache/download", config.root / "cache/download")
    with running(replace(config, upstream="off")) as proxy:
        bob = GoUser(tmp_path / "bob", proxy.url, upstream.sumdb)
        # What the person asked the database for is in the cache, too.
        assert bob.download("example.com/x@v1.0.0")["Sum"]
        assert get(proxy, "example.com/x/@v/list").text == "v1.0.0\n"
        for path in ("list.lock", "v1.0.0.lock", "v1.0.0.ziphash"):
            assert get(proxy, f"example.com/x/@v/{path}").status_code == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_a_zip_that_is_too_large(
    upstream: Upstream,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    chunked: bool,  # noqa: FBT001
) -> None:
    """Beyond 500 MiB, here 300 KB, it is refused before it begins or, of unknown size, cut off; none is kept."""
    monkeypatch.setattr(upstreams, "MAX_ZIP", 300_000)
    name = "example.com/big/@v/v1.0.0.zip"
    upstream.publish("example.com/big", "v1.0.0", {"data.bin": os.urandom(700_000)})
    upstream.faults[name] = Fault(chunked=chunked)
    with running(config) as proxy:
        if chunked:
            with pytest.raises(httpx2.RemoteProtocolError):
                get(proxy, name)
        else:
            refused = get(proxy, name)
            assert (refused.status_code, "at most 300000 are allowed" in refused.text) == (502, True)
        assert get(proxy, f"cached-only/{name}").status_code == 404
    assert list((config.root / "spool").iterdir()) == []


def test_a_public_module_without_a_record(tmp_path: Path, upstream: Upstream, config: Config) -> None:
    """Where the database is not to be asked, the notary vouches: the first content counts, another one is refused."""
    upstream.publish("corp.example/lib", "v1.0.0", recorded=False)
    zip_ = "corp.example/lib/@v/v1.0.0.zip"
    with running(replace(config, nosumdb=("corp.example",))) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url, proxy.goproxy.notary.key)
        assert ann.download("corp.example/lib@v1.0.0")["Sum"]
        assert ann.download("example.com/x@v1.0.0")["Sum"]
        wait_for(config.root / "cache/download" / f"{zip_}hash")
        (config.root / "cache/download" / zip_).unlink()
        upstream.files[zip_] = make_zip("corp.example/lib", "v1.0.0", {"x.go": "package evil\n"})
        refused = get(proxy, zip_)
        assert (refused.status_code, "mismatch" in refused.text or "recorded" in refused.text) == (502, True)
    looked_up = {path.rpartition("/lookup/")[2] for path in upstream.asked if "/lookup/" in path}
    assert looked_up == {"example.com/x@v1.0.0"}
