"""Where things come from with the real go command: origins that are gone, toolchains, the database's own address."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.config import Config
from support.certificates import certificate_files
from support.gitserver import HOST, GitServer
from support.goproxies import running
from support.goupstream import DATABASE, Fault, GoUser, Upstream, go
from support.mooring import free_port
from support.replicas import Replica

TOOLCHAIN = "v0.0.1-go1.99.0"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A local upstream with a checksum database."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/b", "v1.0.0", {"b.go": "package b\n\nconst B = 1\n"})
        requires = {"example.com/b": "v1.0.0"}
        source = 'package a\n\nimport "example.com/b"\n\nconst A = b.B\n'
        served.publish("example.com/a", "v1.0.0", {"a.go": source}, requires=requires)
        yield served


def project(folder: Path, module: str) -> Path:
    """A program that needs a public and a private module."""
    folder.mkdir()
    (folder / "go.mod").write_text(
        f"module example.com/main\n\ngo 1.21\n\nrequire (\n\texample.com/a v1.0.0\n\t{module} v1.0.0\n)\n"
    )
    source = f'package main\n\nimport (\n\t"example.com/a"\n\tx "{module}"\n)\n\nfunc main() {{ println(a.A, x.X) }}\n'
    (folder / "main.go").write_text(source)
    return folder


def build(user: GoUser, folder: Path) -> str:
    """Build the program and run it, with every hash looked up anew."""
    (folder / "go.sum").unlink(missing_ok=True)
    user.go("mod", "tidy", cwd=folder)
    user.go("build", "-o", "program", ".", cwd=folder)
    return user.go("run", ".", cwd=folder).stderr


def test_a_build_goes_on_when_its_origins_are_gone(tmp_path: Path, upstream: Upstream) -> None:
    """Repository, git server, upstream and checksum database are gone, the proxy starts anew: the build works."""
    with ExitStack() as origins:
        git = origins.enter_context(GitServer(tmp_path / "git").serving())
        git.publish("lib", "v1.0.0", {"x.go": "package x\n\nconst X = 2\n"})
        folder = project(tmp_path / "project", git.module("lib"))
        credentials = git.credentials()
        config = Config(
            tmp_path / "store",
            upstream=upstream.url,
            sumdb=upstream.sumdb,
            private=(HOST,),
            go=go(),
            credentials=credentials,
        )
        with running(config) as proxy:
            notary = proxy.goproxy.notary.key
            assert build(GoUser(tmp_path / "ann", proxy.url, notary), folder).split() == ["1", "2"]
            everybody = GoUser(tmp_path / "eve", proxy.url, upstream.sumdb, {"GONOSUMDB": HOST})
            assert build(everybody, folder)
        git.delete("lib")
    upstream.files.clear()
    upstream.database_up = False
    upstream.asked.clear()
    with running(config) as proxy:
        assert build(GoUser(tmp_path / "bob", proxy.url, notary), folder).split() == ["1", "2"]
        everybody = GoUser(tmp_path / "kim", proxy.url, upstream.sumdb, {"GONOSUMDB": HOST})
        assert build(everybody, folder).split() == ["1", "2"]
        versions = GoUser(tmp_path / "joe", proxy.url, notary).go("list", "-m", "-versions", git.module("lib"))
        assert versions.stdout.split()[1:] == ["v1.0.0"]


def test_looking_at_a_graph_fetches_no_zip(tmp_path: Path, upstream: Upstream) -> None:
    """What asks about versions makes us ask the upstream for info and mod files, and for each of them once."""
    config = Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())
    with running(config) as proxy:
        for name in ("ann", "bob"):
            user = GoUser(tmp_path / name, proxy.url, upstream.sumdb)
            user.go("list", "-m", "-json", "example.com/a@latest")
            user.go("list", "-m", "-json", "example.com/b@v1.0.0")
            (tmp_path / name / "go.mod").write_text("module m\n\ngo 1.16\n\nrequire example.com/a v1.0.0\n")
            user.go("mod", "graph")
    modules = {path: count for path, count in upstream.asked.items() if not path.startswith("sumdb/")}
    assert "example.com/b/@v/v1.0.0.mod" in modules
    assert set(modules.values()) == {1}
    assert not any(path.endswith(".zip") for path in upstream.asked)


def test_a_toolchain_is_downloaded_and_verified(tmp_path: Path, upstream: Upstream) -> None:
    """The go command gets another one of itself through us, the second time without any upstream."""
    arch = GoUser(tmp_path / "eve", "off").go("env", "GOARCH").stdout.strip()
    files = {
        "bin/go": "#!/bin/sh\necho a toolchain of $(basename $0)\n",
        "pkg/tool/x": "x",
        "lib/x": "x",
        "VERSION": "go1.99.0\n",
        "bin/gofmt": "x",
    }
    upstream.publish("golang.org/toolchain", f"{TOOLCHAIN}.linux-{arch}", files)
    config = Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())
    wanted = {"GOTOOLCHAIN": "go1.99.0"}
    with running(config) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb, wanted)
        assert ann.go("version").stdout == "a toolchain of go\n"
        upstream.files.clear()
        upstream.database_up = False
        bob = GoUser(tmp_path / "bob", proxy.url, upstream.sumdb, wanted)
        assert bob.go("version").stdout == "a toolchain of go\n"


class OverTls(Upstream):
    """An upstream over https, whose database is called as its address is."""

    def __init__(self, folder: Path, port: int, files: tuple[Path, Path]) -> None:
        super().__init__(folder, f"127.0.0.1:{port}")
        self.port = port
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*files)


class AtItsAddress(OverTls):
    """A checksum database alone."""

    def answer(self, path: str) -> bytes | None:
        return self.database_file(path)


def environment(**settings: str) -> Mapping[str, str]:
    """This process's with other settings."""
    return {**os.environ, **settings}  # noqa: TID251 - of a real program that is started


def test_the_database_is_reached_as_the_go_command_does(tmp_path: Path) -> None:
    """Through the upstream where it offers the database; where it denies it, at the address that its name says."""
    files = certificate_files(tmp_path, "127.0.0.1")
    with (
        AtItsAddress(tmp_path / "own", free_port(), files).serving() as own,
        Upstream(tmp_path / "upstream").serving() as upstream,
    ):
        archive = upstream.publish("example.com/a", "v1.0.0")
        own.record("example.com/a", "v1.0.0", archive, upstream.files["example.com/a/@v/v1.0.0.mod"])
        options = ["--upstream", upstream.url, "--sumdb", own.sumdb]
        replica = Replica(tmp_path / "store", options, environment(SSL_CERT_FILE=str(files[0])))
        try:
            ann = GoUser(tmp_path / "ann", replica.url, own.sumdb)
            assert ann.download("example.com/a@v1.0.0")["Sum"]
        finally:
            replica.stop()
        name = own.sumdb.partition("+")[0]
        assert upstream.asked[f"sumdb/{name}/supported"] == 1
        assert own.asked["lookup/example.com/a@v1.0.0"] == 1
    with Upstream(tmp_path / "other").serving() as upstream:
        upstream.publish("example.com/a", "v1.0.0")
        with running(Config(tmp_path / "second", upstream=upstream.url, sumdb=upstream.sumdb, go=go())) as proxy:
            assert httpx2.get(f"{proxy.url}/example.com/a/@v/v1.0.0.mod").status_code == 200
        assert upstream.asked[f"sumdb/{DATABASE}/supported"] == 1
        assert upstream.asked[f"sumdb/{DATABASE}/lookup/example.com/a@v1.0.0"] == 1


def test_nothing_that_was_asked_for_over_tls_comes_in_clear_text(tmp_path: Path, upstream: Upstream) -> None:
    """An upstream over https that sends the proxy on to http is a bad one: anybody on the way could answer there."""
    files = certificate_files(tmp_path, "127.0.0.1")
    names = [f"example.com/a/@v/{name}" for name in ("list", "v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip")]
    with OverTls(tmp_path / "tls", free_port(), files).serving() as safe:
        for name in names:
            safe.faults[name] = Fault(status=302, body=b"", headers={"Location": f"{upstream.url}/{name}"})
        options = ["--upstream", f"https://127.0.0.1:{safe.port}", "--sumdb", upstream.sumdb]
        replica = Replica(tmp_path / "store", options, environment(SSL_CERT_FILE=str(files[0])))
        try:
            answers = [httpx2.get(f"{replica.url}/{name}") for name in names]
        finally:
            replica.stop()
    assert {(answer.status_code, "redirects from https to http" in answer.text) for answer in answers} == {(502, True)}


def test_the_default_is_what_go_env_says(tmp_path: Path, upstream: Upstream) -> None:
    """Without options the upstreams and the database are those of the go command on the server."""
    settings = environment(GOPROXY=f"{upstream.url},direct", GOSUMDB=upstream.sumdb, GOENV="off")
    replica = Replica(tmp_path / "store", [], settings)
    try:
        assert GoUser(tmp_path / "ann", replica.url, upstream.sumdb).download("example.com/a@v1.0.0")["Sum"]
        assert httpx2.get(f"{replica.url}/example.com/nothing/@v/list").status_code == 404
    finally:
        replica.stop()
    assert upstream.asked["example.com/a/@v/v1.0.0.zip"] == 1
