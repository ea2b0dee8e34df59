"""Work on a store: fill it ahead, carry it into a closed network, hash it again, keep it small; by the CLI."""

import base64
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.config import Config
from support.certificates import certificate_files
from support.gitserver import HOST, GitServer
from support.goproxies import running, wait_for
from support.goupstream import GoUser, Upstream, go, make_zip


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """Three modules, each requiring the next."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/c", "v1.0.0")
        served.publish("example.com/b", "v1.0.0", requires={"example.com/c": "v1.0.0"})
        served.publish("example.com/a", "v1.0.0", requires={"example.com/b": "v1.0.0"})
        yield served


def cli(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `mooring goproxy …` as an administrator does."""
    command = [str(Path(sys.executable).parent / "mooring"), "goproxy", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def options(store: Path, upstream: Upstream) -> list[str | Path]:
    """The settings of a store in front of the local upstream."""
    return ["--store", store, "--upstream", upstream.url, "--sumdb", upstream.sumdb, "--go", go()]


def project(tmp_path: Path) -> Path:
    """A go.mod that needs all three."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.com/main\n\ngo 1.16\n\nrequire example.com/a v1.0.0\n")
    return folder / "go.mod"


def closed(tmp_path: Path, store: Path, upstream: Upstream) -> dict[str, str]:
    """What a person behind a proxy without any upstream gets of the project: by module, its sum."""
    with running(Config(store, upstream="off", sumdb=upstream.sumdb, go=go())) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb)
        ann.go("mod", "download", "all", cwd=tmp_path / "project")
    lines = (tmp_path / "project/go.sum").read_text().splitlines()
    return {line.split()[0]: line.split()[2] for line in lines if "/go.mod" not in line}


def test_the_store_of_mooring_up_is_warmed(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --store it is the one inside `mooring up`, which asks everybody for a token, and needs none here."""
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    settings = ["--upstream", upstream.url, "--sumdb", upstream.sumdb, "--go", go()]
    assert "9 of 9" in cli(*settings, "warm", project(tmp_path)).stdout
    assert "9 right" in cli(*settings, "verify").stdout


def test_a_closed_network_is_complete(tmp_path: Path, upstream: Upstream) -> None:
    """Warmed from a go.mod, exported, imported elsewhere: a build there needs no upstream, the database included."""
    mod = project(tmp_path)
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    assert "9 of 9" in cli(*options(outside, upstream), "warm", mod).stdout
    assert cli(*options(outside, upstream), "export", tmp_path / "modules.tar").stdout
    upstream.asked.clear()
    cli(
        "--store",
        inside,
        "--upstream",
        "off",
        "--sumdb",
        upstream.sumdb,
        "--go",
        go(),
        "import",
        tmp_path / "modules.tar",
    )
    assert sorted(closed(tmp_path, inside, upstream)) == ["example.com/a", "example.com/b", "example.com/c"]
    assert not upstream.asked


def test_an_export_that_was_changed_is_not_believed(tmp_path: Path, upstream: Upstream) -> None:
    """What is imported is verified as if it was fetched: a changed zip stays outside and is named."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    cli(*options(outside, upstream), "warm", project(tmp_path))
    changed = outside / "cache/download/example.com/b/@v/v1.0.0.zip"
    changed.write_bytes(make_zip("example.com/b", "v1.0.0", {"x.go": "package evil\n"}))
    done = cli("--store", inside, "--upstream", "off", "--sumdb", upstream.sumdb, "import", outside, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("example.com/b@v1.0.0: checksum mismatch")
    assert (inside / "cache/download/example.com/a/@v/v1.0.0.zip").exists()
    assert not (inside / "cache/download/example.com/b/@v/v1.0.0.zip").exists()


def test_a_module_cache_can_be_taken_over(tmp_path: Path, upstream: Upstream) -> None:
    """The download cache of a person's go command becomes the store's content, verified."""
    with running(Config(tmp_path / "first", upstream=upstream.url, sumdb=upstream.sumdb, go=go())) as proxy:
        GoUser(tmp_path / "bob", proxy.url, upstream.sumdb).download("example.com/c@v1.0.0")
    store = tmp_path / "store"
    cli(*options(store, upstream), "import", tmp_path / "bob/modcache")
    assert (store / "cache/download/example.com/c/@v/v1.0.0.zip").exists()


def test_names_that_no_module_has_are_left_out(tmp_path: Path, upstream: Upstream) -> None:
    """A file whose name is no UTF-8, in the store or in what is imported, is not the modules' and no reason to stop."""
    store, archive = tmp_path / "store", tmp_path / "modules.tar"
    cli(*options(store, upstream), "warm", project(tmp_path))
    (store / "cache/download/example.com" / os.fsdecode(b"\xe4")).write_text("x")
    cli(*options(store, upstream), "export", archive)
    with tarfile.open(archive, "a") as more:
        more.addfile(tarfile.TarInfo("cache/download/" + os.fsdecode(b"\xe4")))
    for source in (archive, store):
        inside = tmp_path / f"inside-{source.stem}"
        done = cli("--store", inside, "--upstream", "off", "--sumdb", upstream.sumdb, "import", source)
        assert "9 of 9" in done.stdout


def test_verify_finds_what_is_wrong(tmp_path: Path, upstream: Upstream) -> None:
    """A store that is right is said to be; a changed zip, a changed go.mod and a damaged file are each named."""
    store = tmp_path / "store"
    cli(*options(store, upstream), "warm", project(tmp_path))
    assert "0 wrong" in cli(*options(store, upstream), "verify").stdout
    modules = store / "cache/download/example.com"
    (modules / "a/@v/v1.0.0.zip").write_bytes(make_zip("example.com/a", "v1.0.0", {"x.go": "package evil\n"}))
    (modules / "b/@v/v1.0.0.mod").write_text("module example.com/b\n")
    (modules / "c/@v/v1.0.0.zip").write_bytes(b"PK half a zip")
    done = cli(*options(store, upstream), "verify", check=False)
    assert done.returncode == 5
    assert sorted(line.split()[1] for line in done.stdout.splitlines() if line.startswith("WRONG")) == [
        "example.com/a/@v/v1.0.0.zip",
        "example.com/b/@v/v1.0.0.mod",
        "example.com/c/@v/v1.0.0.zip",
    ]


def test_eviction_removes_only_what_can_come_back(tmp_path: Path, upstream: Upstream) -> None:
    """Pinned zips, and those that the upstream has no more, stay; a dry run only tells."""
    store = tmp_path / "store"
    cli(*options(store, upstream), "warm", project(tmp_path))
    zips = {name: store / f"cache/download/example.com/{name}/@v/v1.0.0.zip" for name in "abc"}
    for number, file in enumerate(zips.values()):
        os.utime(file, (number + 1, number + 1))
    cli(*options(store, upstream), "pin", "example.com/a")
    del upstream.files["example.com/b/@v/v1.0.0.zip"]
    assert "B  example.com/c@v1.0.0\n" in cli(*options(store, upstream), "evict", "0", "--dry-run").stdout
    assert all(file.exists() for file in zips.values())
    output = cli(*options(store, upstream), "evict", "0").stdout
    assert "kept  example.com/a@v1.0.0\n  pinned by example.com/a\n" in output
    assert "kept  example.com/b@v1.0.0\n  the upstream has it no more\n" in output
    assert [name for name, file in zips.items() if file.exists()] == ["a", "b"]
    with running(Config(store, upstream=upstream.url, sumdb=upstream.sumdb, go=go())) as proxy:
        assert httpx2.get(f"{proxy.url}/example.com/c/@v/v1.0.0.zip").status_code == 200


def test_a_private_module_is_never_evicted(tmp_path: Path, upstream: Upstream) -> None:
    """What only the notary vouches for stays, however large the store is."""
    store = tmp_path / "store"
    with GitServer(tmp_path / "git").serving() as git:
        git.publish("lib", "v1.0.0")
        credentials = git.credentials()
        config = Config(
            store, upstream=upstream.url, sumdb=upstream.sumdb, private=(HOST,), go=go(), credentials=credentials
        )
        with running(config) as proxy:
            GoUser(tmp_path / "ann", proxy.url).download(git.module("lib") + "@v1.0.0")
        output = cli(*options(store, upstream), "--private", HOST, "evict", "0").stdout
    assert "only the notary vouches for it" in output
    assert list(store.joinpath("cache").rglob("*.zip"))


def test_tokens_and_tls_with_the_real_go_command(tmp_path: Path, upstream: Upstream) -> None:
    """With a token in .netrc the go command downloads over https; without it, it is told why."""
    cert, private_key = certificate_files(tmp_path, "127.0.0.1")
    store = tmp_path / "store"
    token = cli("--store", store, "token", "ann").stdout.strip()
    config = Config(
        store,
        upstream=upstream.url,
        sumdb=upstream.sumdb,
        go=go(),
        tokens=store / "tokens",
        tls_certificate=cert,
        tls_key=private_key,
    )
    with running(config) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb, {"SSL_CERT_FILE": str(cert)})
        assert "needs a token" in ann.download("example.com/a@v1.0.0", check=False)["Error"]
        (tmp_path / "ann/.netrc").write_text(f"machine {proxy.url[8:]} login ann password {token}\n")
        assert ann.download("example.com/a@v1.0.0")["Sum"]
    assert base64.b64encode(token.encode()).decode() not in (store / "tokens").read_text()


def test_a_store_that_lost_its_rows_of_bytes_repairs_itself(tmp_path: Path, upstream: Upstream) -> None:
    """A version whose files were all removed by hand is fetched again by the next request."""
    store = tmp_path / "store"
    with running(Config(store, upstream=upstream.url, sumdb=upstream.sumdb, go=go())) as proxy:
        GoUser(tmp_path / "ann", proxy.url, upstream.sumdb).download("example.com/c@v1.0.0")
        wait_for(store / "cache/download/example.com/c/@v/v1.0.0.ziphash")
        shutil.rmtree(store / "cache/download/example.com/c")
        assert GoUser(tmp_path / "bob", proxy.url, upstream.sumdb).download("example.com/c@v1.0.0")["Sum"]


def test_the_key_is_that_of_the_running_notary(tmp_path: Path, upstream: Upstream) -> None:
    """`mooring goproxy key` shows the value for GOSUMDB, and always the same one."""
    first = cli("--store", tmp_path / "store", "--notary", "sum.corp.example", "key").stdout.strip()
    config = Config(tmp_path / "store", upstream=upstream.url, notary="sum.corp.example", sumdb="off", go=go())
    with running(config) as proxy:
        assert proxy.goproxy.notary.key == first


def test_the_address_is_told_as_soon_as_it_answers(tmp_path: Path, upstream: Upstream) -> None:
    """Also into a pipe, whose reader may wait for nothing else; SIGTERM ends it in order."""
    command = [
        str(Path(sys.executable).parent / "mooring"),
        "goproxy",
        *map(str, options(tmp_path / "store", upstream)),
    ]
    with subprocess.Popen([*command, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition("GOPROXY=")[2].strip()
            assert httpx2.get(f"{url}/example.com/a/@v/list").text == "v1.0.0\n"
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_what_cannot_be_served_is_said(tmp_path: Path, upstream: Upstream) -> None:
    """A port in use, a certificate that is none, a malformed upstream, work on what is not there: a line says which."""
    (tmp_path / "broken").write_text("no certificate and no rule\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "go.mod").write_text("module example.com/main\n\ngo 1.16\n\nrequire example.com/none v1.0.0\n")
    broken = tmp_path / "broken"
    port = upstream.url.rpartition(":")[2]
    store = options(tmp_path / "store", upstream)
    for arguments, text in (
        ([*store, "serve", "--port", port], f"cannot listen on 127.0.0.1 port {port}: Address already in use "),
        ([*store, "serve", "--bind", "", "--port", "0"], "an address to listen on is needed"),
        ([*store, "serve", "--bind", "a..b", "--port", "0"], "on a..b port 0: Name or service not known "),
        ([*store, "serve", "--port", "0", "--tls-certificate", broken, "--tls-key", broken], "cannot be used"),
        ([*store, "serve", "--port", "0", "--tls-key", broken], "a key its certificate"),
        ([*store, "serve", "--port", "0", "--filter", broken], "line 1 of the filter file"),
        ([*store[:2], "--upstream", "nonsense", "serve", "--port", "0"], "must be a URL, direct or off"),
        ([*store[:2], "--upstream", "ftp://x", "serve", "--port", "0"], "must begin with https://"),
        ([*store[:2], "--sumdb", "a b c", "serve", "--port", "0"], "GOSUMDB must be off"),
        ([*store[:2], "--sumdb", "sum.nobody.example", "serve", "--port", "0"], "is not known here"),
        ([*store[:2], "--go", "/nowhere/go", "serve", "--port", "0"], "/nowhere/go env does not answer"),
        ([*store, "evict", "many"], "must be a number of bytes"),
        ([*store, "pin", " "], "a pin is MODULE"),
        ([*store, "revoke", "nobody"], "has no token"),
        ([*store, "import", broken], "is no export"),
        ([*store, "import", tmp_path / "empty"], "holds no module"),
        ([*store, "export", tmp_path / "export.tar", "nothing.example"], "is covered by nothing.example"),
        ([*store, "warm", tmp_path / "go.mod"], "reading example.com/none/@v/v1.0.0.info: 404"),
    ):
        done = cli(*arguments, check=False)
        assert done.returncode != 0
        assert text in done.stderr.replace("\n", " "), done.stderr
        assert "Traceback" not in done.stderr
