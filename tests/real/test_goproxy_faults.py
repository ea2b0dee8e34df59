"""Upstreams, databases and disks that misbehave, seen by a client of the proxy over HTTP."""

import concurrent.futures
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.config import Config
from mooring.server.goproxy import Served
from support import goproxies
from support.goproxies import BIG, SMALL, get, running, wait_for
from support.goupstream import DATABASE, Fault, Upstream, go, make_zip
from support.waiting import until

upstream, config, proxy = goproxies.upstream, goproxies.config, goproxies.proxy


@pytest.mark.parametrize(
    ("name", "fault", "status"),
    [
        (f"{SMALL}.info", Fault(body=b"<html>welcome</html>"), 502),
        (f"{SMALL}.info", Fault(body=b'{"Version":"v1.0.1","Time":"2026-01-02T03:04:05Z"}'), 502),
        (f"{SMALL}.info", Fault(body=b"[]"), 502),
        (f"{SMALL}.info", Fault(body=b"[" * 100_000), 502),
        (f"{SMALL}.info", Fault(body=b'{"Version":"v1.0.0"}' + b" " * 2**20), 502),
        (f"{SMALL}.info", Fault(status=500), 503),
        (f"{SMALL}.info", Fault(status=429), 503),
        (f"{SMALL}.info", Fault(status=403), 403),
        (f"{SMALL}.info", Fault(status=404), 404),
        (f"{SMALL}.info", Fault(status=410), 404),
        (f"{SMALL}.info", Fault(announce=500), 503),
        (f"{SMALL}.mod", Fault(body=b"<html>welcome</html>"), 502),
        (f"{SMALL}.mod", Fault(body=b"module example.com/evil\n"), 502),
        (f"{SMALL}.mod", Fault(body=b""), 502),
        (f"{SMALL}.zip", Fault(body=b"<html>welcome</html>"), 502),
        (f"{SMALL}.zip", Fault(body=make_zip("example.com/x", "v1.0.0", {"x.go": "package evil\n"})), 502),
        (f"{SMALL}.info", Fault(status=302, headers={"Location": f"/{SMALL}.info"}), 502),
        (f"{SMALL}.mod", Fault(status=302, headers={"Location": "gopher://127.0.0.1/"}), 503),
        (f"{SMALL}.mod", Fault(body=b"x" * (16 * 2**20 + 1)), 502),
        (f"{SMALL}.zip", Fault(cut_at=100), 503),
        (f"{SMALL}.zip", Fault(announce=5000), 503),
        (f"{SMALL}.zip", Fault(announce=50), 502),
        (f"{SMALL}.zip", Fault(status=301, headers={"Location": f"/{SMALL}.zip"}), 502),
        ("example.com/x/@v/list", Fault(body=b"<html>\nwelcome\n</html>\n"), 502),
        ("example.com/x/@v/list", Fault(body=b"v1.0.0\n" * 200_000), 502),
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
    assert get(proxy, f"cached-only/{name}").status_code == 404
    del upstream.faults[name]
    if status != 404 and name in upstream.files:
        assert get(proxy, name).content == upstream.files[name]


def test_an_upstreams_refusal_is_told_apart(tmp_path: Path, upstream: Upstream, config: Config) -> None:
    """What the upstream refuses is counted by a name of its own and listed with its cause; ours are not."""
    rules = tmp_path / "filter"
    rules.write_text("- example.com/big # take another one\n")
    for status in (401, 403):
        upstream.faults[f"{SMALL}.{'mod' if status == 401 else 'info'}"] = Fault(status=status, body=b"pay first\n")
    with running(replace(config, filter=rules)) as proxy:
        for kind in ("mod", "info"):
            refused = get(proxy, f"{SMALL}.{kind}")
            assert (refused.status_code, "pay first" in refused.text) == (403, True)
        assert get(proxy, BIG).status_code == 403
        counted = get(proxy, "-/metrics").text
        for kind, outcome in (("mod", "upstream_refused"), ("info", "upstream_refused"), ("zip", "forbidden")):
            assert f'goproxy_requests_total{{kind="{kind}",outcome="{outcome}"}} 1.0' in counted
        (failure,) = get(proxy, "-/pulls").json()["errors"]
        assert failure["what"] == "example.com/x@v1.0.0"
        assert failure["why"] == f"{upstream.url} answered 403: pay first"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_big_zip_that_is_wrong_is_cut_off(upstream: Upstream, proxy: Served, chunked: bool) -> None:  # noqa: FBT001
    """A wrong zip whose answer has begun is never completed, and the next request gets the right one."""
    name = BIG
    wrong = make_zip("example.com/big", "v1.0.0", {"data.bin": os.urandom(700_000)})
    upstream.faults[name] = Fault(body=wrong, times=1, chunked=chunked)
    received: list[bytes] = []
    with httpx2.stream("GET", f"{proxy.url}/{name}") as answer, pytest.raises(httpx2.RemoteProtocolError):
        received.extend(answer.iter_raw())
    assert 0 < sum(map(len, received)) < len(wrong)
    upstream.faults[name] = Fault(chunked=chunked)
    assert get(proxy, name).content == upstream.files[name]


@pytest.mark.parametrize("name", [f"{SMALL}.info", f"{SMALL}.zip"])
def test_a_connection_that_breaks_before_an_answer_is_tried_again(upstream: Upstream, proxy: Served, name: str) -> None:
    """An upstream that hangs up once is asked again; one that always does is 503."""
    upstream.faults[name] = Fault(hang_up=True)
    assert get(proxy, name).status_code == 503
    upstream.faults[name] = Fault(hang_up=True, times=1)
    assert get(proxy, name).status_code == 200


def test_a_zip_that_ends_early_is_cut_off(upstream: Upstream, proxy: Served) -> None:
    """An upstream that breaks off in the middle ends our answer too, instead of leaving it waiting."""
    name = BIG
    upstream.faults[name] = Fault(cut_at=400_000, times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        get(proxy, name)
    assert get(proxy, name).content == upstream.files[name]


def test_two_hundred_clients_are_one_fetch(upstream: Upstream, proxy: Served) -> None:
    """Everybody who asks for a cold zip gets all of it, and the upstream was asked once."""
    name = BIG
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
    name = BIG
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
        assert get(proxy, f"{SMALL}.zip").status_code == 200
    with running(replace(config, upstream="http://127.0.0.1:1")) as proxy:
        assert get(proxy, f"{SMALL}.zip").status_code == 200
        assert get(proxy, f"{SMALL}.info").status_code == 503
        assert "cannot be reached" in get(proxy, "example.com/y/@v/list").text


def test_an_upstream_that_is_too_slow_is_no_absence(upstream: Upstream, config: Config) -> None:
    """An upstream that sends nothing for too long is 503, before an answer began and in the middle of one."""
    gate = threading.Event()
    upstream.faults[f"{SMALL}.info"] = Fault(pace=lambda _: gate.wait(10))
    upstream.faults[BIG] = Fault(pace=lambda at: gate.wait(10) if at > 300_000 else None)
    try:
        with running(replace(config, upstream_timeout_s=2.0)) as proxy:
            assert get(proxy, f"{SMALL}.info").status_code == 503
            with pytest.raises(httpx2.RemoteProtocolError):
                get(proxy, BIG)
    finally:
        gate.set()


def test_an_upstream_that_drips_is_cut_off(upstream: Upstream, config: Config) -> None:
    """One that goes on sending, but next to nothing, does not keep everybody waiting for ever."""
    name = BIG
    gate = threading.Event()
    drip = Fault(piece=20, pace=lambda at: gate.wait(0.1) and None if at > 300_000 else None)
    upstream.faults[name] = replace(drip, times=1)
    try:
        with running(replace(config, upstream_timeout_s=2.0)) as proxy:
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
            assert get(proxy, f"{SMALL}.info").status_code == status, chain


def test_old_lists_serve_when_the_upstream_fails(upstream: Upstream, proxy: Served) -> None:
    """A list and a latest that were seen once are served on, also when the upstream now denies the module."""
    upstream.files["example.com/x/@latest"] = upstream.files[f"{SMALL}.info"]
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


def test_the_database_is_down(upstream: Upstream, proxy: Served) -> None:
    """Without the database nothing new is believed, and what is kept is served."""
    assert get(proxy, f"{SMALL}.zip").status_code == 200
    upstream.database_up = False
    assert get(proxy, f"{SMALL}.zip").status_code == 200
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
    assert get(proxy, f"{SMALL}.mod").status_code == 502
    upstream.faults.clear()
    assert get(proxy, f"{SMALL}.mod").status_code == 200


def test_a_database_that_forks_is_found_out(tmp_path: Path, upstream: Upstream, proxy: Served) -> None:
    """A database that shows another history than the one it showed before is not believed."""
    assert get(proxy, f"{SMALL}.mod").status_code == 200
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
        assert get(proxy, f"{SMALL}.mod").status_code == 200


def test_a_partial_file_is_never_seen_and_repaired(config: Config, upstream: Upstream) -> None:
    """What a killed save leaves in the spool is no answer, and an empty file that a crash left is fetched again."""
    with running(config) as proxy:
        get(proxy, f"{SMALL}.zip")
        wait_for(config.root / "cache/download" / f"{SMALL}.ziphash")
    (config.root / "spool/abandoned").write_bytes(b"half")
    os.utime(config.root / "spool/abandoned", (1, 1))
    (config.root / "cache/download" / f"{SMALL}.zip").write_bytes(b"")
    with running(config) as proxy:
        assert get(proxy, f"{SMALL}.zip").content == upstream.files[f"{SMALL}.zip"]
        until(lambda: not (config.root / "spool/abandoned").exists())
    assert list((config.root / "spool").iterdir()) == []


def test_two_replicas_share_a_store(upstream: Upstream, config: Config) -> None:
    """What one replica fetched the other serves, and both record into one notary."""
    with running(config) as one, running(config) as other:
        get(one, f"{SMALL}.zip")
        wait_for(config.root / "cache/download" / f"{SMALL}.ziphash")
        upstream.asked.clear()
        assert get(other, f"{SMALL}.zip").status_code == 200
        assert not upstream.asked
        key = one.goproxy.notary.name
        for proxy, module in ((one, "example.com/x"), (other, "example.com/big")):
            assert get(proxy, f"sumdb/{key}/lookup/{module}@v1.0.0").status_code == 200
        assert get(one, f"sumdb/{key}/lookup/example.com/big@v1.0.0").text.startswith("1\n")


def test_a_kill_in_the_middle_of_a_save(upstream: Upstream, config: Config) -> None:
    """Killed while a zip comes in, nothing partial is visible; started again, the next request gets all of it."""
    name = BIG
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
