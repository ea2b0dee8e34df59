"""What clients ask for and how, by HTTP and by the go command: parts, compression, rules, tokens, kinds of versions."""

import http.client
import json
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy import access
from mooring.goproxy.config import Config
from mooring.server.goproxy import Served
from support import goproxies
from support.goproxies import BIG, SMALL, came_long_ago, get, running, wait_for
from support.goupstream import GoUser, Upstream

upstream, config, proxy = goproxies.upstream, goproxies.config, goproxies.proxy


def test_what_is_kept_is_served_without_fetching(upstream: Upstream, proxy: Served) -> None:
    """`/cached-only/` and Disable-Module-Fetch answer from the store and ask nobody."""
    assert get(proxy, f"cached-only/{SMALL}.mod").status_code == 404
    assert get(proxy, f"{SMALL}.mod", Disable_Module_Fetch="true").status_code == 404
    assert not upstream.asked
    get(proxy, f"{SMALL}.mod")
    assert get(proxy, f"cached-only/{SMALL}.mod").status_code == 200
    assert get(proxy, "cached-only/example.com/x/@v/list").text == "v1.0.0\n"


def test_the_go_command_is_given_the_go_mod_beside_the_info(upstream: Upstream, proxy: Served, config: Config) -> None:
    """Of whoever else asks for an info, as what looks for updates does, nobody knows that the go.mod is wanted."""
    get(proxy, f"{SMALL}.info")
    assert upstream.asked[f"{SMALL}.mod"] == 0
    name = BIG.removesuffix(".zip")
    get(proxy, f"{name}.info", User_Agent="Go-http-client/1.1")
    wait_for(config.root / "cache/download" / f"{name}.mod")
    assert upstream.asked[f"{name}.zip"] == 0


def test_head_range_and_compression(upstream: Upstream, proxy: Served) -> None:
    """HEAD has the length and no body, a range is a part of a zip, and only what grows, a list, is compressed."""
    name = BIG
    whole = upstream.files[name]
    for _ in ("cold", "warm"):
        head = httpx2.head(f"{proxy.url}/{name}", timeout=30)
        assert (head.status_code, head.content, int(head.headers["content-length"])) == (200, b"", len(whole))
        for span, part in (("0-99", whole[:100]), ("100-", whole[100:]), ("-10", whole[-10:])):
            answer = get(proxy, name, Range=f"bytes={span}")
            assert (answer.status_code, answer.content) == (206, part)
    assert get(proxy, name, Range=f"bytes={len(whole)}-").status_code == 416
    assert get(proxy, name, Range="bytes=9-1").status_code == 200
    assert "content-encoding" not in get(proxy, name, Accept_Encoding="gzip").headers
    requires = {f"example.com/dependency{number}": "v1.0.0" for number in range(100)}
    for patch in range(200):
        upstream.publish("example.com/many", f"v1.0.{patch}", requires=requires)
    mod = get(proxy, "example.com/many/@v/v1.0.0.mod", Accept_Encoding="gzip")
    assert "content-encoding" not in mod.headers
    assert mod.content == upstream.files["example.com/many/@v/v1.0.0.mod"]
    versions = get(proxy, "example.com/many/@v/list", Accept_Encoding="gzip")
    assert versions.headers["content-encoding"] == "gzip"
    assert len(versions.text.split()) == 200
    assert httpx2.post(f"{proxy.url}/{name}").status_code == 405


def test_a_connection_is_used_again(upstream: Upstream, proxy: Served) -> None:
    """One connection carries every kind of answer, with and without a body, one after the other."""
    big = f"/{BIG}"
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=30)
    for _ in ("cold", "warm"):
        for method, path, span, status in (
            ("HEAD", big, "", 200),
            ("GET", big, "bytes=0-9", 206),
            ("GET", big, "bytes=99999999-", 416),
            ("GET", big, "", 200),
            ("HEAD", f"/{SMALL}.mod", "", 200),
            ("GET", f"/{SMALL}.mod", "", 200),
            ("GET", "/example.com/none/@v/list", "", 404),
            ("POST", f"/{SMALL}.mod", "", 405),
        ):
            connection.request(method, path, headers={"Range": span} if span else {})
            answer = connection.getresponse()
            length = len(answer.read())
            assert (answer.status, answer.will_close) == (status, False)
            assert method != "GET" or length == int(answer.headers["content-length"])
    connection.close()
    assert upstream.asked[big[1:]] == 1


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2fetc/passwd/@v/list",
        "example.com/x%2f..%2f../@v/list",
        "%2e%2e/@v/list",
        "example.com/x/@v/v1.0.0.zip%00",
        "sumdb/x.example/supported",
        "-/nothing",
        "",
        "example.com/x/@v/!v1.0.0.info",
        "example.com/x/@v/v1.0.0.zip/..",
    ],
)
def test_malformed_requests_are_not_found(proxy: Served, path: str) -> None:
    """Nothing that a client sends is a server error or leaves the store."""
    assert get(proxy, path).status_code == 404


def test_rules_are_shown_by_the_go_command(tmp_path: Path, upstream: Upstream, config: Config) -> None:
    """An excluded version is refused with its reason, and the newest allowed one is chosen instead of it."""
    upstream.publish("example.com/x", "v1.1.0")
    rules = tmp_path / "filter"
    rules.write_text("- example.com/x v1.1.0 # CVE-2026-1: take v1.0.0\nD example.com/elsewhere\n")
    with running(replace(config, filter=rules)) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb)
        assert "CVE-2026-1: take v1.0.0" in ann.download("example.com/x@v1.1.0", check=False)["Error"]
        assert ann.download("example.com/x@latest")["Version"] == "v1.0.0"
        assert get(proxy, "example.com/elsewhere/@v/list").headers["location"].startswith(upstream.url)


def test_an_allow_list_and_what_is_had_elsewhere(tmp_path: Path, upstream: Upstream, config: Config) -> None:
    """What an allow-list does not name is refused; what is marked D comes from the upstream itself, and is not kept."""
    upstream.publish("example.com/elsewhere", "v1.0.0")
    rules = tmp_path / "filter"
    rules.write_text("-\n+ example.com/x\nD example.com/elsewhere\n")
    with running(replace(config, filter=rules)) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb)
        assert ann.download("example.com/x@v1.0.0")["Sum"]
        assert ann.download("example.com/elsewhere@v1.0.0")["Sum"]
        assert (
            "example.com/big@v1.0.0 is not allowed here" in ann.download("example.com/big@v1.0.0", check=False)["Error"]
        )
    assert not (config.root / "cache/download/example.com/elsewhere").exists()
    assert not any(path.startswith("example.com/big") for path in upstream.asked)


def test_tokens_are_asked_for_and_never_logged(
    tmp_path: Path, upstream: Upstream, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a token nothing is served; with it in the path the go command needs no other setting."""
    tokens = tmp_path / "tokens"
    token = access.make(tokens, "ann", ())
    with running(replace(config, tokens=tokens, private=("git.example",))) as proxy:
        assert get(proxy, f"{SMALL}.mod").status_code == 401
        assert get(proxy, "-/healthz").status_code == 200
        ann = GoUser(tmp_path / "ann", f"{proxy.url}/t-{token}", upstream.sumdb)
        assert ann.download("example.com/x@v1.0.0")["Sum"]
        assert get(proxy, f"t-{token}/git.example/secret/@v/list").status_code == 403
        assert get(proxy, f"t-{token}/sumdb/sum.mooring.internal/lookup/git.example/secret@v1.0.0").status_code == 403
    assert token not in capsys.readouterr().out
    assert not any("secret" in path for path in upstream.asked)


def test_the_catalog_the_index_and_the_metrics(config: Config, proxy: Served) -> None:
    """What is kept can be searched and mirrored, and what was asked for is counted."""
    get(proxy, f"{SMALL}.zip")
    get(proxy, f"{SMALL}.mod")
    wait_for(config.root / "cache/download" / f"{SMALL}.ziphash")
    came = came_long_ago(config.root)
    lines = [json.loads(line) for line in get(proxy, "index").text.splitlines()]
    assert [(line["Path"], line["Version"]) for line in lines] == [("example.com/x", "v1.0.0")]
    assert get(proxy, "index?since=2100-01-01T00:00:00Z").text == ""
    assert get(proxy, "index?limit=0").status_code == 422
    assert get(proxy, "index?since=yesterday").status_code == 422
    found = get(proxy, "-/catalog?q=example").json()["modules"][0]
    assert (found["module"], found["versions"][0]["version"]) == ("example.com/x", "v1.0.0")
    assert found["versions"][0]["since"] == came
    assert get(proxy, "-/pulls").json()["pulls"][0]["module"] == "example.com/x"
    assert 'goproxy_requests_total{kind="zip",outcome="miss"} 1.0' in get(proxy, "-/metrics").text


def test_toolchains_and_incompatible_versions(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """A toolchain is a module like any other, and the plus of +incompatible stays a plus."""
    upstream.publish("golang.org/toolchain", "v0.0.1-go1.99.0.linux-amd64", {"bin/go": "#!/bin/sh\n"})
    assert get(proxy, "golang.org/toolchain/@v/v0.0.1-go1.99.0.linux-amd64.zip").status_code == 200
    upstream.publish("example.com/Old", "v2.3.0+incompatible", {"x.go": "package old\n"})
    ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb)
    assert ann.download("example.com/Old@v2.3.0+incompatible")["Sum"]


def test_commits_branches_and_early_versions(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """A pseudo-version is a version like any other and in no list; a branch and a commit lead to one."""
    pseudo, early = "v1.0.1-0.20260102030405-0123456789ab", "v1.1.0-rc.1"
    for version in (pseudo, early):
        upstream.publish("example.com/x", version)
    for revision in ("main", "fix#42", "0123456789ab"):
        upstream.files[f"example.com/x/@v/{revision}.info"] = upstream.files[f"example.com/x/@v/{pseudo}.info"]
    upstream.files["example.com/x/@v/list"] += f"{pseudo}\n".encode()
    ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb)
    for revision, version in (
        (pseudo, pseudo),
        ("main", pseudo),
        ("fix#42", pseudo),
        ("0123456789ab", pseudo),
        (early, early),
    ):
        assert ann.download(f"example.com/x@{revision}")["Version"] == version
    assert get(proxy, "example.com/x/@v/list").text == f"v1.0.0\n{early}\n"
    assert ann.download("example.com/x@latest")["Version"] == "v1.0.0"
