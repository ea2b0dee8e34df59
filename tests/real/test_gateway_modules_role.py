"""The gateway and the module proxy's role together: nobody can tell which of them answered, and both count."""

import asyncio
import gzip
import itertools
import json
import os
import signal
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mooring.goproxy.names import Kind
from mooring.settings import Home
from support.goupstream import Fault, GoUser, Upstream
from support.modules import Front, front, short_home
from support.nginx import CONSOLE, Reply

MOD = b"module example.com/x\n" + b"// a comment\n" * 300
X = "/example.com/x/@v/"


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a short folder."""
    with short_home() as found:
        yield found


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """An upstream with a few modules."""
    with Upstream(tmp_path / "upstream").serving() as found:
        found.publish("example.com/y", "v1.0.0")
        found.publish("example.com/Y/Upper", "v1.0.0")
        yield found


def settings(upstream: Upstream) -> str:
    """`goproxy.toml` for this upstream."""
    return f'upstream = "{upstream.url}"\nsumdb = "{upstream.sumdb}"\nprivate = ["example.com/secret"]\n'


@pytest.fixture
async def both(home: Home, upstream: Upstream) -> AsyncIterator[Front]:
    """A gateway, a role, and a store with all kinds of files."""
    async with front(home) as found:
        for module in ("example.com/x", "example.com/secret", "example.com/Upper/Case", "example.com/m/v2"):
            version = "v2.0.0" if module.endswith("/v2") else "v1.0.0"
            found.keep(module, version, Kind.info, b'{"Version":"%s"}' % version.encode())
            found.keep(module, version, Kind.mod, MOD)
            found.keep(module, version, Kind.zip, os.urandom(100_000))
        found.keep("example.com/x", "v1.0.0-RC.1", Kind.info, b'{"Version":"v1.0.0-RC.1"}')
        found.keep("example.com/x", "v2.0.0+incompatible", Kind.info, b'{"Version":"v2.0.0+incompatible"}')
        found.keep("gopkg.in/yaml.v3", "v3.0.0", Kind.info, b'{"Version":"v3.0.0"}')
        found.keep("example.com/tilde~x/a", "v1.0.0", Kind.info, b'{"Version":"v1.0.0"}')
        (found.store / "example.com/x/@v/list").write_text("v1.0.0\n")
        long = found.store / "example.com/long/@v/list"
        long.parent.mkdir(parents=True)
        long.write_text("".join(f"v1.0.{patch}\n" for patch in range(500)))
        await found.start_role(settings(upstream))
        yield found


# Each with everything that it is asked with below. What no store holds is as good: the two must say the same.
PATHS = (
    *(f"{X}v1.0.0.{kind}" for kind in ("info", "mod", "zip", "ziphash", "lock", "INFO", "", "zip.zip", "zip/")),
    *(f"{X}v{version}" for version in ("1.0.0-!r!c.1.info", "1.0.0-RC.1.info", "1.0.0-%21r%21c.1.info", "2.0.0.info")),
    *(f"{X}{name}" for name in ("v2.0.0+incompatible.info", "v2.0.0%2Bincompatible.info", "v2.0.0 incompatible.info")),
    *(f"{X}{name}" for name in ("list", "master.info", "v1.info", "v1.0.info", "v01.0.0.info", "v1.0.0-01.info")),
    *(f"{X}{name}" for name in ("v1.0.0+meta.info", "v1.0.0-.info", "latest.info", "../list", "", ".info", "v.zip")),
    "/example.com/x/@latest",
    "/example.com/none/@v/v1.0.0.zip",
    "/example.com/y/@v/v1.0.0.info",
    "/example.com/!y/!upper/@v/v1.0.0.zip",
    "/example.com/!upper/!case/@v/v1.0.0.zip",
    "/example.com/%21upper/%21case/@v/v1.0.0.zip",
    "/example.com/Upper/Case/@v/v1.0.0.zip",
    "/example.com/!Upper/!case/@v/v1.0.0.zip",
    "/example.com/!/!case/@v/v1.0.0.zip",
    "/example.com/upper!/!case/@v/v1.0.0.zip",
    "/example.com/m/v2/@v/v2.0.0.mod",
    "/example.com/m/v2/@v/v1.0.0.mod",
    "/example.com/m/v1/@v/v1.0.0.mod",
    "/example.com/m/v02/@v/v2.0.0.mod",
    "/gopkg.in/yaml.v3/@v/v3.0.0.info",
    "/gopkg.in/yaml/@v/v3.0.0.info",
    "/example.com/tilde~x/a/@v/v1.0.0.info",
    "/example.com/tilde~1/@v/v1.0.0.info",
    "/cached-only/example.com/x/@v/v1.0.0.info",
    "/cached-only/example.com/none/@v/v1.0.0.info",
    "/cached-only/cached-only/example.com/x/@v/v1.0.0.info",
    "/example.com//x/@v/v1.0.0.info",
    "//example.com/x/@v/v1.0.0.info",
    "/example.com/x//@v/v1.0.0.info",
    "/example.com/x/@v//v1.0.0.info",
    "/example.com/x/./@v/v1.0.0.info",
    "/example.com/x/../x/@v/v1.0.0.info",
    "/example.com/../../../../etc/passwd",
    "/example.com/%2e%2e/x/@v/v1.0.0.info",
    "/example.com/..%2fx/@v/v1.0.0.info",
    "/example.com/x%2F@v/v1.0.0.info",
    "/example.com%2fx/@v/v1.0.0.info",
    "/example.com/x/%40v/v1.0.0.info",
    "/example.com/x/@v/v1%2e0.0.info",
    "/example.com/x/@v/v1.0.0.info%00",
    "/example.com/x/@v/v1.0.0.info%",
    "/example.com/x/@v/v1.0.0.info%zz",
    "/example.com/x/@v/v1.0.0.info%0a",
    "/example.com/x/@v/v1.0.0.info%20",
    "/example.com/x\\@v/v1.0.0.info",
    "/example.com/%c3%a4/@v/v1.0.0.info",
    "/example.com/\u00e4/@v/v1.0.0.info",
    "/example.com/con/@v/v1.0.0.info",
    "/example.com/aux.x/@v/v1.0.0.info",
    "/example.com/x./@v/v1.0.0.info",
    "/example.com/.x/@v/v1.0.0.info",
    "/example.com/x/@v/v1.0.0.info?",
    "/example.com/x/@v/v1.0.0.info?go-get=1",
    "/example.com/x/@v/v1.0.0.info?/../..",
    "/example.com/x/@v/v1.0.0.info#x",
    "/example/x/@v/v1.0.0.info",
    "/t-example.com/x/@v/v1.0.0.info",
    "/t-wrong.example/example.com/x/@v/v1.0.0.info",
    "/-example.com/x/@v/v1.0.0.info",
    "/Example.com/x/@v/v1.0.0.info",
    "/" + "a" * 250 + ".com/x/@v/v1.0.0.info",
    "/example.com/" + "a/" * 520 + "@v/v1.0.0.info",
    "/example.com/" + "a/" * 4000 + "@v/v1.0.0.info",
    "/example.com/secret/@v/v1.0.0.zip",
    "/sumdb/sum.test.example/supported",
    "/sumdb/sum.test.example/latest",
    "/sumdb/other.example/supported",
    "/index",
    "/-/catalog?q=y",
    "/-/nothing",
    "/",
    "/@v/list",
    "/example.com/long/@v/list",
)
ASKED = (
    ("GET", {}),
    ("HEAD", {}),
    ("GET", {"Accept-Encoding": "gzip"}),
    ("GET", {"Accept-Encoding": "gzip; q=0"}),
    ("HEAD", {"Range": "bytes=5-20"}),
    ("GET", {"Range": "bytes=5-20"}),
    ("GET", {"Range": "bytes=99999-"}),
    ("GET", {"Range": "bytes=100000-"}),
    ("GET", {"Range": "bytes=-7"}),
    ("GET", {"Range": "bytes=9-2"}),
    ("GET", {"Range": "bytes=1-2,5-6"}),
    ("GET", {"Range": "lines=1-2"}),
    ("GET", {"If-None-Match": "*"}),
    ("GET", {"If-Match": '"x"'}),
    ("GET", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    ("GET", {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:01 GMT"}),
    ("GET", {"Range": "bytes=5-20", "If-Range": '"x"'}),
    ("GET", {"Disable-Module-Fetch": "true"}),
    ("POST", {"Content-Length": "0"}),
    ("DELETE", {}),
)
# What nginx itself cannot read, or what climbs out of the prefix, is no path of a module: 400, where Python says 404.
REFUSED = {
    "/example.com/../../../../etc/passwd",
    *(f"{X}v1.0.0.info{end}" for end in ("%00", "%", "%zz")),
}


def told(reply: Reply) -> dict[str, object]:
    """What a client sees, but for what says nothing about the file."""
    body = reply.body
    if reply.headers.get("content-encoding") == "gzip" and body:
        body = gzip.decompress(body)
    names = ["content-type", "cache-control", "content-range", "content-encoding", "etag", "last-modified", "allow"]
    names += ["location", "www-authenticate", "x-content-type-options"]
    if "content-encoding" not in reply.headers:
        names.append("content-length")
    if reply.status != 206:
        names.append("accept-ranges")
    seen: dict[str, object] = {name: reply.headers.get(name) for name in names}
    return seen | {"status": reply.status, "body": body, "vary": reply.headers.get("vary", "").lower()}


async def _pair(both: Front, method: str, path: str, token: str, headers: dict[str, str]) -> tuple[Reply, Reply]:
    lines = [f"Host: {both.gateway.authority(CONSOLE)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    rest = " HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
    segment = f"/t-{token}" if token else ""
    ours = await both.gateway.raw(f"{method} /goproxy{segment}{path}{rest}".encode())
    return ours, await both.raw_role(f"{method} {segment}{path}{rest}".encode())


async def test_nobody_can_tell_who_answered(both: Front) -> None:
    """Over a corpus of right and malformed paths, methods and conditions the gateway says what Python alone says."""
    token = both.token("ann")
    different = []
    refused = set()
    for path in PATHS:
        # What is missed is the same whatever it is asked with: a few forms of it are enough.
        for method, headers in ASKED if path.startswith(f"{X}v1.0.0.") else ASKED[:4]:
            ours, theirs = await _pair(both, method, path, token, headers)
            assert theirs.status == 400 or theirs.headers["x-content-type-options"] == "nosniff"
            if ours.status == theirs.status == 400:
                continue
            if ours.status == 400:
                refused.add(path)
            elif told(ours) != told(theirs):
                different.append((method, path[:80], headers, told(ours), told(theirs)))
    assert not different
    assert refused == REFUSED


async def test_nobody_can_tell_who_refused(both: Front) -> None:
    """Without a token, with a wrong one, and for another's private module the answer is Python's, words included."""
    for token, path in itertools.product(("", "wrong", "%41", both.token("ann")), (f"{X}v1.0.0.zip", PRIVATE)):
        ours, theirs = await _pair(both, "GET", path, token, {})
        assert told(ours) == told(theirs)
    assert (await both.get(PRIVATE, token=both.token("bob"))).status == 403
    assert (await both.get(PRIVATE, token=both.token("eve", "example.com/secret"))).status == 200


PRIVATE = "/example.com/secret/@v/v1.0.0.zip"


async def test_both_count_what_was_pulled(both: Front, upstream: Upstream) -> None:
    """Hits of the gateway are in metrics, pulls and the access log beside the role's own, each once."""
    token = both.token("ann", "*")
    for _ in range(7):
        assert (await both.get(f"{X}v1.0.0.zip", token=token)).status == 200
    assert (await both.get("/example.com/y/@v/v1.0.0.mod", token=token)).status == 200
    assert (await both.get("/example.com/y/@v/v1.0.0.mod", token=token)).status == 200
    hits = ('{kind="zip",outcome="hit"} 7.0', '{kind="mod",outcome="hit"} 1.0')
    async with asyncio.timeout(30):
        # Each worker tells its own once a second.
        metrics = ""
        while not all(f"goproxy_requests_total{hit}" in metrics for hit in hits):
            await asyncio.sleep(0.1)
            metrics = await _metrics(both, token)
    assert 'goproxy_requests_total{kind="mod",outcome="miss"} 1.0' in metrics
    pulls = {each["module"]: each for each in (await both.get("/-/pulls", token=token)).json()["pulls"]}
    assert (pulls["example.com/x"]["requests"], pulls["example.com/x"]["subjects"]) == (7, {"ann": 7})
    assert (pulls["example.com/y"]["requests"], pulls["example.com/y"]["misses"]) == (2, 1)
    lines = [json.loads(line) for line in both.log().splitlines() if '"gateway"' in line]
    assert sum(line["times"] for line in lines if line["module"] == "example.com/x@v1.0.0") == 7
    assert token not in both.log()
    assert upstream.asked["example.com/y/@v/v1.0.0.mod"] == 1


async def _metrics(both: Front, token: str) -> str:
    return (await both.get("/-/metrics", token=token)).body.decode()


async def test_counts_wait_for_a_role_that_was_killed(both: Front, upstream: Upstream) -> None:
    """What is served while no role runs is counted by the next one."""
    token = both.token("ann", "*")
    both.kill_role()
    for _ in range(5):
        assert (await both.get(f"{X}v1.0.0.zip", token=token)).status == 200
    await asyncio.sleep(1.5)
    await both.start_role(settings(upstream))
    async with asyncio.timeout(30):
        while 'goproxy_requests_total{kind="zip",outcome="hit"} 5.0' not in (await _metrics(both, token)):
            await asyncio.sleep(0.1)


async def test_counts_wait_in_bounded_memory(both: Front, upstream: Upstream) -> None:
    """Of what one worker cannot remember in full while no role runs, kinds and numbers stay right; no log fills up."""
    both.kill_role()
    tokens = [both.token(f"user{number}") for number in range(130)]
    for number in range(200):
        both.keep("example.com/many", f"v1.0.{number}", Kind.info, b"{}")
    await asyncio.sleep(1)
    async with asyncio.TaskGroup() as group:
        for token in tokens:
            group.create_task(_ask_many(both, token, 200))
    await both.start_role(settings(upstream))
    async with asyncio.timeout(60):
        while 'goproxy_requests_total{kind="info",outcome="hit"} 26000.0' not in (await _metrics(both, tokens[0])):
            await asyncio.sleep(0.2)
    nginx = "".join(path.read_text(errors="replace") for path in both.home.gateway.glob("*.log"))
    assert "goproxy.hits" not in nginx


async def _ask_many(both: Front, token: str, count: int) -> None:
    """Ask for that many files, one after the other on one connection."""
    reader, writer = await both.gateway.connect()
    host = both.gateway.authority(CONSOLE)
    for number in range(count):
        target = f"/goproxy/t-{token}/example.com/many/@v/v1.0.{number}.info"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert b" 200 " in (await reader.readuntil(b"\r\n\r\n"))
        assert await reader.readexactly(2) == b"{}"
    writer.close()


async def test_no_client_can_forge_a_count(both: Front) -> None:
    """Counts come by datagrams to a socket of the user's own; no path, method or header of a request gets there."""
    token = both.token("ann", "*")
    forged = json.dumps([["bob", "example.com/x/@v/v1.0.0.zip", 1000]])
    for path in ("/-/hits", "/-/reported", "/-/metrics", "/-/pulls", "/../goproxy.hits", "/-/%2e%2e/hits"):
        for method in ("POST", "PUT", "GET"):
            await both.gateway.ask(method, CONSOLE, f"/goproxy/t-{token}{path}", {"X-Subject": "bob"}, forged.encode())
    await asyncio.sleep(2)
    assert b"bob" not in (await both.get("/-/pulls", token=token)).body
    found = both.home.modules_hits.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(both.home.run.stat().st_mode) == 0o700


async def test_an_orderly_end_takes_the_permission_back(both: Front) -> None:
    """A role that is told to end, perhaps for other settings, leaves nothing that would go on by the old ones."""
    token = both.token("ann")
    assert (await both.get(f"{X}v1.0.0.zip", token=token)).status == 200
    both.kill_role(signal.SIGTERM)
    assert not both.home.modules_policy.exists()
    await both.until(503, f"{X}v1.0.0.zip", token=token)


async def test_settings_that_change_count_for_the_gateway(both: Front, upstream: Upstream) -> None:
    """What becomes private by a new `goproxy.toml`, or excluded by a filter file, is served to nobody else any more."""
    token = both.token("ann")
    assert (await both.get(f"{X}v1.0.0.zip", token=token)).status == 200
    text = settings(upstream).replace('"example.com/secret"', '"example.com/secret", "example.com/x"')
    both.home.modules_settings.write_text(text)
    await both.until(403, f"{X}v1.0.0.zip", token=token)
    (both.home.root / "rules").write_text("- example.com/x # not this one\n")
    both.home.modules_settings.write_text('filter = "rules"\n' + settings(upstream))
    async with asyncio.timeout(30):
        while b"not this one" not in (await both.get(f"{X}v1.0.0.zip", token=token)).body:
            await asyncio.sleep(0.1)
    (both.home.root / "rules").write_text("+ example.com/x\n")
    await both.until(200, f"{X}v1.0.0.zip", token=token)


async def test_a_zip_that_is_wrong_is_cut_off_at_the_client(both: Front, upstream: Upstream) -> None:
    """What the role cuts off does not end well behind the gateway either: the client sees that bytes are missing."""
    right = upstream.publish("example.com/large", "v1.0.0", {"data": os.urandom(400_000)})
    wrong = bytearray(right)
    wrong[200_000] ^= 1
    name = "example.com/large/@v/v1.0.0.zip"
    upstream.faults[name] = Fault(body=bytes(wrong), times=1)
    token = both.token("ann")
    answer = await both.get(f"/{name}", token=token)
    assert answer.status == 502 or len(answer.body) < int(answer.headers["content-length"])
    answer = await both.get(f"/{name}", token=token)
    assert (answer.status, answer.body) == (200, right)


async def test_a_miss_streams(both: Front, upstream: Upstream) -> None:
    """The first bytes of a zip are with the client while the last are still at the upstream, and nothing is on disk."""
    data = os.urandom(600_000)
    archive = upstream.publish("example.com/slow", "v1.0.0", {"data": data}, stored=True)
    name = "example.com/slow/@v/v1.0.0.zip"
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    def pace(sent: int) -> None:
        if sent > 400_000:
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result(30)

    upstream.faults[name] = Fault(pace=pace)
    reader, writer = await both.gateway.connect()
    target = f"/goproxy/t-{both.token('ann')}/{name}"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {CONSOLE}:{both.gateway.port}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readexactly(200_000)
        assert b" 200 " in head
        assert not [path for path in (both.home.gateway / "tmp").rglob("*") if path.is_file()]
        released.set()
        assert first + await reader.read() == archive
    writer.close()


async def test_the_go_command_builds_through_it(home: Home, tmp_path: Path, upstream: Upstream) -> None:
    """`go mod download` with the checksum database through the gateway; once more with role and upstream dead."""
    upstream.publish("example.com/top", "v1.2.0", requires={"example.com/Y/Upper": "v1.0.0"})
    async with front(home, console="localhost") as found:
        await found.start_role(settings(upstream))
        token = found.token("ann")
        proxy = f"http://localhost:{found.gateway.port}/goproxy/t-{token}"
        first = GoUser(tmp_path / "first", proxy, upstream.sumdb)
        got = await asyncio.to_thread(first.download, "example.com/top@latest")
        assert got["Version"] == "v1.2.0"
        await asyncio.to_thread(first.download, "example.com/Y/Upper@v1.0.0")
        async with asyncio.timeout(30):
            # The last byte is with the client a moment before the file is in its place.
            while len(list(found.store.rglob("*.zip"))) < 2:
                await asyncio.sleep(0.05)
        found.kill_role()
        upstream.faults.update(dict.fromkeys(upstream.files, Fault(status=500, body=b"")))
        second = GoUser(tmp_path / "second", proxy)
        for module in ("example.com/top@v1.2.0", "example.com/Y/Upper@v1.0.0"):
            again = await asyncio.to_thread(second.download, module)
            assert "Error" not in again
        missing = await asyncio.to_thread(second.download, "example.com/none@v1.0.0", check=False)
        assert "the module proxy does not answer" in missing["Error"]
        nginx = "".join(path.read_text(errors="replace") for path in home.gateway.glob("*.log"))
        assert token not in nginx + found.log()
