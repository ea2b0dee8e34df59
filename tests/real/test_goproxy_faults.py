"""Upstreams, databases and disks that misbehave, seen by a client of the proxy over HTTP."""

import concurrent.futures
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy import access
from mooring.goproxy.config import Config
from mooring.goproxy.service import Lifetimes
from mooring.server.goproxy import Served
from support.goproxies import running
from support.goupstream import DATABASE, Fault, GoUser, Upstream, go, make_zip

X = "example.com/x/@v/v1.0.0"
BIG = {"x.go": "package x\n", "data.bin": os.urandom(700_000)}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A local upstream with a checksum database, and one module in it."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/x", "v1.0.0")
        served.publish("example.com/big", "v1.0.0", BIG)
        yield served


@pytest.fixture
def config(tmp_path: Path, upstream: Upstream) -> Config:
    """A proxy in front of it that believes nothing for long."""
    lifetimes = Lifetimes(mutable_s=0.0, absent_s=30.0, failed_s=0.0)
    return Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go(), lifetimes=lifetimes)


@pytest.fixture
def proxy(config: Config) -> Iterator[Served]:
    """The same, serving."""
    with running(config) as served:
        yield served


def get(proxy: Served, path: str, **headers: str) -> httpx2.Response:
    """One GET; header names have underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.get(f"{proxy.url}/{path}", headers=named, timeout=30)


def wait_for(file: Path) -> None:
    """A zip is kept a moment after its last byte was sent."""
    for _ in range(500):
        if file.exists():
            return
        threading.Event().wait(0.01)
    raise AssertionError(file)


@pytest.mark.parametrize(
    ("name", "fault", "status"),
    [
        (f"{X}.info", Fault(body=b"<html>welcome</html>"), 502),
        (f"{X}.info", Fault(body=b'{"Version":"v1.0.1","Time":"2026-01-02T03:04:05Z"}'), 502),
        (f"{X}.info", Fault(body=b"[]"), 502),
        (f"{X}.info", Fault(status=500), 503),
        (f"{X}.info", Fault(status=429), 503),
        (f"{X}.info", Fault(status=403), 403),
        (f"{X}.info", Fault(status=404), 404),
        (f"{X}.info", Fault(status=410), 404),
        (f"{X}.info", Fault(announce=500), 503),
        (f"{X}.mod", Fault(body=b"<html>welcome</html>"), 502),
        (f"{X}.mod", Fault(body=b"module example.com/evil\n"), 502),
        (f"{X}.mod", Fault(body=b""), 502),
        (f"{X}.zip", Fault(body=b"<html>welcome</html>"), 502),
        (f"{X}.zip", Fault(body=make_zip("example.com/x", "v1.0.0", {"x.go": "package evil\n"})), 502),
        (f"{X}.info", Fault(status=302, headers={"Location": f"/{X}.info"}), 502),
        (f"{X}.mod", Fault(status=302, headers={"Location": "gopher://127.0.0.1/"}), 503),
        (f"{X}.mod", Fault(body=b"x" * (16 * 2**20 + 1)), 502),
        (f"{X}.zip", Fault(cut_at=100), 503),
        (f"{X}.zip", Fault(announce=5000), 503),
        (f"{X}.zip", Fault(announce=50), 502),
        (f"{X}.zip", Fault(status=301, headers={"Location": f"/{X}.zip"}), 502),
        ("example.com/x/@v/list", Fault(body=b"<html>\nwelcome\n</html>\n"), 502),
        ("example.com/x/@latest", Fault(body=b"nothing"), 502),
    ],
)
def test_a_fault_of_the_upstream_is_said_and_not_kept(
    upstream: Upstream, proxy: Served, name: str, fault: Fault, status: int
) -> None:
    """Each fault has its status and a reason in plain text; once the upstream is right again, so is the answer."""
    upstream.faults[name] = fault
    answer = get(proxy, name)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(answer.content) <= 648
    assert len(answer.text.splitlines()) <= 8
    del upstream.faults[name]
    if status != 404 and name in upstream.files:
        assert get(proxy, name).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_big_zip_that_is_wrong_is_cut_off(upstream: Upstream, proxy: Served, chunked: bool) -> None:  # noqa: FBT001
    """A wrong zip whose answer has begun is never completed, and the next request gets the right one."""
    name = "example.com/big/@v/v1.0.0.zip"
    wrong = make_zip("example.com/big", "v1.0.0", {"data.bin": os.urandom(700_000)})
    upstream.faults[name] = Fault(body=wrong, times=1, chunked=chunked)
    received: list[bytes] = []
    with httpx2.stream("GET", f"{proxy.url}/{name}") as answer, pytest.raises(httpx2.RemoteProtocolError):
        received.extend(answer.iter_raw())
    assert 0 < sum(map(len, received)) < len(wrong)
    upstream.faults[name] = Fault(chunked=chunked)
    assert get(proxy, name).content == upstream.files[name]


@pytest.mark.parametrize("name", [f"{X}.info", f"{X}.zip"])
def test_a_connection_that_breaks_before_an_answer_is_tried_again(upstream: Upstream, proxy: Served, name: str) -> None:
    """An upstream that hangs up once is asked again; one that always does is 503."""
    upstream.faults[name] = Fault(hang_up=True)
    assert get(proxy, name).status_code == 503
    upstream.faults[name] = Fault(hang_up=True, times=1)
    assert get(proxy, name).status_code == 200


def test_a_zip_that_ends_early_is_cut_off(upstream: Upstream, proxy: Served) -> None:
    """An upstream that breaks off in the middle ends our answer too, instead of leaving it waiting."""
    name = "example.com/big/@v/v1.0.0.zip"
    upstream.faults[name] = Fault(cut_at=400_000, times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        get(proxy, name)
    assert get(proxy, name).content == upstream.files[name]


def test_two_hundred_clients_are_one_fetch(upstream: Upstream, proxy: Served) -> None:
    """Everybody who asks for a cold zip gets all of it, and the upstream was asked once."""
    name = "example.com/big/@v/v1.0.0.zip"
    gate = threading.Event()
    upstream.faults[name] = Fault(pace=lambda at: gate.wait(20) if at else None)
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        waiting = [pool.submit(get, proxy, name) for _ in range(200)]
        while len(upstream.asked) == 0:
            gate.wait(0.01)
        gate.wait(0.5)
        gate.set()
        found = [future.result() for future in waiting]
    assert {answer.content for answer in found} == {upstream.files[name]}
    assert upstream.asked[name] == 1


def test_readers_get_what_is_there_before_the_end(upstream: Upstream, proxy: Served) -> None:
    """A client streams what the first fetch has received while the upstream still sends; the last bytes are held."""
    name = "example.com/big/@v/v1.0.0.zip"
    gate = threading.Event()
    upstream.faults[name] = Fault(pace=lambda at: gate.wait(20) if at > 400_000 else None)
    try:
        with httpx2.stream("GET", f"{proxy.url}/{name}", timeout=30) as answer:
            received = 0
            for chunk in answer.iter_raw():
                received += len(chunk)
                if received > 250_000:
                    break
            assert not gate.is_set()
    finally:
        gate.set()


def test_an_upstream_that_is_down_is_no_absence(config: Config) -> None:
    """What nobody could ask about is 503, not 404; what is kept is served."""
    with running(config) as proxy:
        assert get(proxy, f"{X}.zip").status_code == 200
    with running(replace(config, upstream="http://127.0.0.1:1")) as proxy:
        assert get(proxy, f"{X}.zip").status_code == 200
        assert get(proxy, f"{X}.info").status_code == 503
        assert "cannot be reached" in get(proxy, "example.com/y/@v/list").text


def test_an_upstream_that_is_too_slow_is_no_absence(upstream: Upstream, config: Config) -> None:
    """An upstream that sends nothing for too long is 503, before an answer began and in the middle of one."""
    gate = threading.Event()
    upstream.faults[f"{X}.info"] = Fault(pace=lambda _: gate.wait(10))
    upstream.faults["example.com/big/@v/v1.0.0.zip"] = Fault(pace=lambda at: gate.wait(10) if at > 300_000 else None)
    try:
        with running(replace(config, upstream_timeout_s=0.5)) as proxy:
            assert get(proxy, f"{X}.info").status_code == 503
            with pytest.raises(httpx2.RemoteProtocolError):
                get(proxy, "example.com/big/@v/v1.0.0.zip")
    finally:
        gate.set()


def test_an_upstream_that_drips_is_cut_off(upstream: Upstream, config: Config) -> None:
    """One that goes on sending, but next to nothing, does not keep everybody waiting for ever."""
    name = "example.com/big/@v/v1.0.0.zip"
    gate = threading.Event()
    drip = Fault(piece=20, pace=lambda at: gate.wait(0.1) and None if at > 300_000 else None)
    upstream.faults[name] = replace(drip, times=1)
    try:
        with running(replace(config, upstream_timeout_s=0.7)) as proxy:
            with pytest.raises(httpx2.RemoteProtocolError):
                get(proxy, name)
            upstream.faults.clear()
            assert get(proxy, name).content == upstream.files[name]
    finally:
        gate.set()


def test_the_chain_goes_on_as_gos_does(upstream: Upstream, config: Config) -> None:
    """After a comma only absence leads on, after a bar any error."""
    down, empty = "http://127.0.0.1:1", f"{upstream.url}/nothing"
    for chain, status in (
        (f"{down}|{upstream.url}", 200),
        (f"{down},{upstream.url}", 503),
        (f"{empty},{upstream.url}", 200),
        (f"{empty},direct", 404),
    ):
        with running(replace(config, root=config.root / str(abs(hash(chain))), upstream=chain)) as proxy:
            assert get(proxy, f"{X}.info").status_code == status, chain


def test_old_lists_serve_when_the_upstream_fails(upstream: Upstream, proxy: Served) -> None:
    """A list and a latest that were seen once are served on, also when the upstream now denies the module."""
    upstream.files["example.com/x/@latest"] = upstream.files[f"{X}.info"]
    for name in ("example.com/x/@v/list", "example.com/x/@latest"):
        right = get(proxy, name)
        assert right.status_code == 200
        for status in (500, 404):
            upstream.faults[name] = Fault(status=status)
            assert get(proxy, name).content == right.content


def test_a_new_tag_is_seen(upstream: Upstream, proxy: Served) -> None:
    """A list past its lifetime is asked for again."""
    assert get(proxy, "example.com/x/@v/list").text.split() == ["v1.0.0"]
    upstream.publish("example.com/x", "v1.1.0")
    assert get(proxy, "example.com/x/@v/list").text.split() == ["v1.0.0", "v1.1.0"]


def test_absence_is_remembered(upstream: Upstream, proxy: Served) -> None:
    """A path that was proved absent is not asked for again within its lifetime."""
    for _ in range(5):
        assert get(proxy, "example.com/none/@v/list").status_code == 404
    assert upstream.asked["example.com/none/@v/list"] == 1


def test_what_is_kept_is_served_without_fetching(upstream: Upstream, proxy: Served) -> None:
    """`/cached-only/` and Disable-Module-Fetch answer from the store and ask nobody."""
    assert get(proxy, f"cached-only/{X}.mod").status_code == 404
    assert get(proxy, f"{X}.mod", Disable_Module_Fetch="true").status_code == 404
    assert not upstream.asked
    get(proxy, f"{X}.mod")
    assert get(proxy, f"cached-only/{X}.mod").status_code == 200
    assert get(proxy, "cached-only/example.com/x/@v/list").text == "v1.0.0\n"


def test_head_range_and_compression(upstream: Upstream, proxy: Served) -> None:
    """HEAD has the length and no body, a range is a part of a zip, and text is compressed when asked, zips never."""
    name = "example.com/big/@v/v1.0.0.zip"
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
    upstream.publish("example.com/many", "v1.0.0", requires=requires)
    mod = "example.com/many/@v/v1.0.0.mod"
    assert get(proxy, mod, Accept_Encoding="gzip").headers["content-encoding"] == "gzip"
    assert get(proxy, mod, Accept_Encoding="gzip").content == upstream.files[mod]
    assert httpx2.post(f"{proxy.url}/{name}").status_code == 405


def test_a_connection_is_used_again(upstream: Upstream, proxy: Served) -> None:
    """One connection carries every kind of answer, with and without a body, one after the other."""
    big = "/example.com/big/@v/v1.0.0.zip"
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=30)
    for _ in ("cold", "warm"):
        for method, path, span, status in (
            ("HEAD", big, "", 200),
            ("GET", big, "bytes=0-9", 206),
            ("GET", big, "bytes=99999999-", 416),
            ("GET", big, "", 200),
            ("HEAD", f"/{X}.mod", "", 200),
            ("GET", f"/{X}.mod", "", 200),
            ("GET", "/example.com/none/@v/list", "", 404),
            ("POST", f"/{X}.mod", "", 405),
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


def test_the_database_is_down(upstream: Upstream, proxy: Served) -> None:
    """Without the database nothing new is believed, and what is kept is served."""
    assert get(proxy, f"{X}.zip").status_code == 200
    upstream.database_up = False
    assert get(proxy, f"{X}.zip").status_code == 200
    assert get(proxy, "example.com/big/@v/v1.0.0.mod").status_code == 503
    upstream.database_up = True
    assert get(proxy, "example.com/big/@v/v1.0.0.mod").status_code == 200


@pytest.mark.parametrize("what", ["lookup", "tile", "head"])
def test_a_database_that_lies_is_not_believed(upstream: Upstream, proxy: Served, what: str) -> None:
    """A changed record, a changed tile and a head signed by somebody else are refused, and not kept."""
    lookup = f"sumdb/{DATABASE}/lookup/example.com/x@v1.0.0"
    tile = f"sumdb/{DATABASE}/tile/8/0/000.p/{upstream.database.size}"
    right = upstream.answer(lookup)
    assert right is not None
    if what == "lookup":
        upstream.faults[lookup] = Fault(body=right.replace(b"h1:", b"h1:A", 1))
    elif what == "tile":
        upstream.faults[tile] = Fault(body=bytes(32 * upstream.database.size))
    else:
        upstream.faults[lookup] = Fault(body=right.replace("— ".encode() + DATABASE.encode(), "— other".encode()))
    assert get(proxy, f"{X}.mod").status_code == 502
    upstream.faults.clear()
    assert get(proxy, f"{X}.mod").status_code == 200


def test_a_database_that_forks_is_found_out(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """A database that shows another history than the one it showed before is not believed."""
    assert get(proxy, f"{X}.mod").status_code == 200
    with Upstream(tmp_path / "other").serving() as other:
        key = (tmp_path / "upstream/database/key").read_bytes()
    for name in ("records", "head"):
        (tmp_path / "other/database" / name).unlink(missing_ok=True)
    (tmp_path / "other/database/key").write_bytes(key)
    fork = Upstream(tmp_path / "other")
    for number in range(5):
        fork.publish("example.com/forked", f"v1.0.{number}")
    upstream.database, upstream.files = fork.database, {**upstream.files, **fork.files}
    assert get(proxy, "example.com/forked/@v/v1.0.0.mod").status_code == 502
    assert other is not fork


def test_the_database_is_reached_at_its_own_address(upstream: Upstream, config: Config) -> None:
    """Where no upstream offers the database, it is asked itself; with a URL in GOSUMDB nobody else is."""
    upstream.database_here = False
    with running(replace(config, sumdb=f"{upstream.sumdb} {upstream.url}/own")) as proxy:
        for path in ("lookup/example.com/x@v1.0.0", f"tile/8/0/000.p/{upstream.database.size}"):
            found = upstream.database_file(path)
            assert found is not None
            upstream.files[f"own/{path}"] = found
        assert get(proxy, f"{X}.mod").status_code == 200


def test_a_partial_file_is_never_seen_and_repaired(config: Config, upstream: Upstream) -> None:
    """What a killed save leaves in the spool is no answer, and an empty file that a crash left is fetched again."""
    with running(config) as proxy:
        get(proxy, f"{X}.zip")
        wait_for(config.root / "cache/download" / f"{X}.ziphash")
    (config.root / "spool/abandoned").write_bytes(b"half")
    os.utime(config.root / "spool/abandoned", (1, 1))
    (config.root / "cache/download" / f"{X}.zip").write_bytes(b"")
    with running(config) as proxy:
        assert get(proxy, f"{X}.zip").content == upstream.files[f"{X}.zip"]
    assert list((config.root / "spool").iterdir()) == []


def test_two_replicas_share_a_store(upstream: Upstream, config: Config) -> None:
    """What one replica fetched the other serves, and both record into one notary."""
    with running(config) as one, running(config) as other:
        get(one, f"{X}.zip")
        wait_for(config.root / "cache/download" / f"{X}.ziphash")
        upstream.asked.clear()
        assert get(other, f"{X}.zip").status_code == 200
        assert not upstream.asked
        key = one.goproxy.notary.name
        for proxy, module in ((one, "example.com/x"), (other, "example.com/big")):
            assert get(proxy, f"sumdb/{key}/lookup/{module}@v1.0.0").status_code == 200
        assert get(one, f"sumdb/{key}/lookup/example.com/big@v1.0.0").text.startswith("1\n")


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


def test_tokens_are_asked_for_and_never_logged(
    tmp_path: Path, upstream: Upstream, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a token nothing is served; with it in the path the go command needs no other setting."""
    tokens = tmp_path / "tokens"
    token = access.make(tokens, "ann", ())
    with running(replace(config, tokens=tokens, private=("git.example",))) as proxy:
        assert get(proxy, f"{X}.mod").status_code == 401
        assert get(proxy, "-/healthz").status_code == 200
        ann = GoUser(tmp_path / "ann", f"{proxy.url}/t-{token}", upstream.sumdb)
        assert ann.download("example.com/x@v1.0.0")["Sum"]
        assert get(proxy, f"t-{token}/git.example/secret/@v/list").status_code == 403
        assert get(proxy, f"t-{token}/sumdb/sum.mooring.internal/lookup/git.example/secret@v1.0.0").status_code == 403
    assert token not in capsys.readouterr().out
    assert not any("secret" in path for path in upstream.asked)


def test_the_catalog_the_index_and_the_metrics(config: Config, proxy: Served) -> None:
    """What is kept can be searched and mirrored, and what was asked for is counted."""
    before = time.time()
    get(proxy, f"{X}.zip")
    get(proxy, f"{X}.mod")
    wait_for(config.root / "cache/download" / f"{X}.ziphash")
    lines = [json.loads(line) for line in get(proxy, "index").text.splitlines()]
    assert [(line["Path"], line["Version"]) for line in lines] == [("example.com/x", "v1.0.0")]
    assert get(proxy, "index?since=2100-01-01T00:00:00Z").text == ""
    assert get(proxy, "index?limit=0").status_code == 422
    assert get(proxy, "index?since=yesterday").status_code == 422
    found = get(proxy, "-/catalog?q=example").json()["modules"][0]
    assert (found["module"], found["versions"][0]["version"]) == ("example.com/x", "v1.0.0")
    assert found["versions"][0]["since"] >= before - 1
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
    for revision in ("main", "0123456789ab"):
        upstream.files[f"example.com/x/@v/{revision}.info"] = upstream.files[f"example.com/x/@v/{pseudo}.info"]
    upstream.files["example.com/x/@v/list"] += f"{pseudo}\n".encode()
    ann = GoUser(tmp_path / "ann", proxy.url, upstream.sumdb)
    for revision, version in ((pseudo, pseudo), ("main", pseudo), ("0123456789ab", pseudo), (early, early)):
        assert ann.download(f"example.com/x@{revision}")["Version"] == version
    assert get(proxy, "example.com/x/@v/list").text == f"v1.0.0\n{early}\n"
    assert ann.download("example.com/x@latest")["Version"] == "v1.0.0"


def test_a_kill_in_the_middle_of_a_save(upstream: Upstream, config: Config) -> None:
    """Killed while a zip comes in, nothing partial is visible; started again, the next request gets all of it."""
    name = "example.com/big/@v/v1.0.0.zip"
    gate = threading.Event()
    upstream.faults[name] = Fault(pace=lambda at: gate.wait(20) if at > 400_000 else None, times=1)
    command = [Path(sys.executable).parent / "mooring", "goproxy", "--store", config.root, "--go", go()]
    command += ["--upstream", upstream.url, "--sumdb", upstream.sumdb, "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("GOPROXY=")[2].strip()
        with httpx2.stream("GET", f"{url}/{name}", timeout=30) as answer:
            assert len(next(answer.iter_raw())) > 0
            process.kill()
            process.wait()
    gate.set()
    assert [file.stat().st_size > 0 for file in (config.root / "spool").iterdir()] == [True]
    assert not (config.root / "cache/download" / name).exists()
    with running(config) as proxy:
        assert get(proxy, name).content == upstream.files[name]
