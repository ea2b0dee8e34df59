"""Whatever arrives at the door is answered: malformed paths, escapes, queries, headers, in thousands of mixtures."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy.asgi import App
from mooring.goproxy.config import Config
from mooring.goproxy.responses import takes_gzip
from mooring.server.goproxy import build
from support.goupstream import make_zip

HAVE = b"/example.com/x/@v/v1.0.0"
PIECES = [
    b"/", b"//", b"/..", b"/%2e%2e", b"%2f", b"%00", b"%", b"%zz", b"%C3%A4", b"\xff", b"!", b"!!", b"!x", b"!X",
    b"%21a", b"example.com", b"EXAMPLE.com", b"example.com/x", b"/v2", b"/v02", b"/@v/", b"/@v/list", b"/@latest",
    b"/@", b"@v", b"v1.0.0", b"v1.0.0+incompatible", b"v2.0.0", b"latest", b"main", b".info", b".mod", b".zip",
    b".ziphash", b".lock", b"/sumdb/", b"sum.mooring.internal", b"/lookup/", b"/tile/8/0/000", b"/tile/8/data/x000/000",
    b".p/7", b"/latest", b"/supported", b"/cached-only", b"/t-abc", b"/t-", b"/index", b"/-/catalog", b"/-/pulls",
    b"/-/metrics", b"/-/", b"~1", b"9" * 5000, b"x" * 300, b"a/" * 600, b"x999/" * 2000, b"con", b" ", b"+", b"?", b"#",
    b"\\", b":", b"\r\n",
]  # fmt: skip
GOOD = [
    HAVE + b".zip", HAVE + b".mod", b"/example.com/x/@v/list", b"/example.com/x/@latest", b"/index", b"/-/catalog",
    b"/sumdb/sum.mooring.internal/tile/8/0/000", b"/sumdb/sum.mooring.internal/lookup/example.com/x@v1.0.0",
]  # fmt: skip
QUERIES = [
    b"", b"since=", b"since=yesterday", b"since=0001-01-01T00:00:00", b"since=9999-12-31T23:59:59Z", b"since=%ff",
    b"since=2026-01-02T03:04:05%2b14:00", b"limit=0", b"limit=-1", b"limit=2001", b"limit=" + b"9" * 5000, b"limit=1e3",
    "limit=٣".encode(), b"q=%", b"q=%00", b"&&==;", b"limit=1&limit=2", b"=" * 3000,
]  # fmt: skip
HEADERS = [
    (b"range", b"bytes=0-1"), (b"range", b"bytes=-"), (b"range", b"bytes=5-1"), (b"range", b"bytes=-0"),
    (b"range", b"bytes=" + b"9" * 5000 + b"-"), (b"range", b"bytes=0-1,3-4"), (b"range", b"\xff"),
    (b"range", b"lines=1-2"), (b"accept-encoding", b"gzip;q=0"), (b"accept-encoding", b"\xff"),
    (b"authorization", b"Basic \xff"),
    (b"authorization", b"Bearer"), (b"authorization", b"Basic " + b"A" * 9000), (b"disable-module-fetch", b"TRUE"),
]  # fmt: skip
MALFORMED = {400, 404, 405, 416, 422}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A proxy without any upstream, and a version in its store."""
    async with build(Config(tmp_path, upstream="off", sumdb="off")) as goproxy:
        archive = make_zip("example.com/x", "v1.0.0", {"go.mod": "module example.com/x\n"})
        for kind, data in (("info", b'{"Version":"v1.0.0"}'), ("mod", b"module example.com/x\n"), ("zip", archive)):
            await goproxy.store.put(f"example.com/x/@v/v1.0.0.{kind}", data)
        yield goproxy.app


async def asked(app: App, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> list[Any]:
    """The messages of one answer, which is complete."""
    sent: list[Any] = []

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        sent.append(message)

    await app(scope(method, path, query, headers), receive, send)
    assert [message["type"] for message in sent[:1]] == ["http.response.start"]
    assert not sent[-1].get("more_body")
    return sent


async def answer(app: App, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of one answer, which is complete."""
    return int((await asked(app, method, path, query, headers))[0]["status"])


def scope(method: str, path: bytes, query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> Any:  # noqa: ANN401
    """A request, as ASGI has it."""
    request = {"type": "http", "method": method, "raw_path": path, "query_string": query, "headers": headers or []}
    return {**request, "root_path": ""}


async def receive() -> Any:  # noqa: ANN401 - as ASGI has it
    """Nothing is ever received."""
    return {"type": "http.disconnect"}


def mixture(order: random.Random) -> bytes:
    """A path of pieces, or a good one with bytes changed, removed or added."""
    if order.random() < 0.5:
        return b"/" + b"".join(order.choices(PIECES, k=order.randint(1, 6)))
    path = bytearray(order.choice(GOOD))
    for _ in range(order.randint(0, 3)):
        at = order.randrange(1, len(path))
        path[at : at + order.randint(0, 2)] = order.choice([b"", bytes([order.randrange(256)]), *PIECES])
    return bytes(path)


@pytest.mark.parametrize("seed", range(8))
async def test_everything_is_answered(app: App, seed: int) -> None:
    """No request is a server's error, and nothing malformed is anything but the client's."""
    order = random.Random(seed)  # noqa: S311 - which requests are made
    seen = set()
    for _ in range(500):
        path, query = mixture(order), order.choice(QUERIES)
        headers = order.sample(HEADERS, order.randint(0, 3))
        method = order.choices(["GET", "HEAD", "POST", "\xff"], weights=[20, 5, 1, 1])[0]
        status = await answer(app, method, path, query, headers)
        assert status in MALFORMED or status in (200, 206), (method, path, query, headers, status)
        seen.add(status)
    assert {200, 404} <= seen


@pytest.mark.parametrize("query", QUERIES)
async def test_every_query_of_the_index_is_answered(app: App, query: bytes) -> None:
    """A parameter is understood or named as wrong."""
    for path in (b"/index", b"/-/catalog", b"/-/pulls"):
        assert await answer(app, "GET", path, query, []) in (200, 422)


@pytest.mark.parametrize("since", [b"2026-01-02", b"2026-01-02T03:04:05", b"2026-01-02T03:04:05.5"])
async def test_a_time_has_its_zone(app: App, since: bytes) -> None:
    """What this machine's zone made of it would be hours off for a mirror elsewhere."""
    assert await answer(app, "GET", b"/index", b"since=" + since, []) == 422
    for zone in (b"Z", b"+14:00", b"%2B14:00"):
        assert await answer(app, "GET", b"/index", b"since=2026-01-02T03:04:05" + zone, []) == 200


@pytest.mark.parametrize("header", HEADERS)
async def test_every_header_is_answered(app: App, header: tuple[bytes, bytes]) -> None:
    """A range is served, ignored or out of reach; nothing else about a file depends on malformed headers."""
    for kind in (b".zip", b".mod", b".info"):
        assert await answer(app, "GET", HAVE + kind, b"", [header]) in (200, 206, 416)


async def test_an_answer_that_a_stop_cuts_off_is_no_hit(app: App) -> None:
    """It is counted, and logged, as what it was."""
    begun = asyncio.Event()

    async def send(_message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        begun.set()
        await asyncio.Event().wait()

    async with Tasks("test") as tasks:
        serving = tasks.spawn("serve", app(scope("GET", HAVE + b".zip"), receive, send))
        await begun.wait()
        serving.cancel()
        await asyncio.wait([serving])
    metrics = (await asked(app, "GET", b"/-/metrics", b"", []))[1]["body"].decode()
    assert re.findall(r'goproxy_requests_total\{kind="zip",outcome="(\w+)"\}', metrics) == ["cut_off"]


async def headers_of(app: App, *asked_with: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the zip."""
    start = (await asked(app, "GET", HAVE + b".zip", b"", list(asked_with)))[0]
    return start["status"], dict(start["headers"])


async def test_a_range_that_depends_on_something_is_ignored(app: App) -> None:
    """We have no validators, so `If-Range` names a file of somebody else's: another proxy's zip has other bytes."""
    span = (b"range", b"bytes=1-2")
    assert (await headers_of(app, span))[0] == 206
    assert (await headers_of(app, span, (b"if-range", b'"x"')))[0] == 200


async def test_a_range_out_of_reach_is_not_for_ever(app: App) -> None:
    """Only the file itself may be cached: a shared cache would answer those who want all of it with 416."""
    status, headers = await headers_of(app, (b"range", b"bytes=999999-"))
    assert status == 416
    assert b"cache-control" not in headers
    assert b"cache-control" in (await headers_of(app))[1]


async def test_a_range_is_of_a_get_alone(app: App) -> None:
    """HEAD tells the length of all of it (RFC 9110, 14.2), as the gateway does."""
    whole = (await headers_of(app))[1]
    for span in (b"bytes=1-2", b"bytes=999999-"):
        start = (await asked(app, "HEAD", HAVE + b".zip", b"", [(b"range", span)]))[0]
        assert (start["status"], dict(start["headers"])) == (200, whole)


@pytest.mark.parametrize("accepted", [b"gzip", b"GZip", b"br;q=0, gzip", b"gzip;q=0.5", b"gzip; q=1.0, *;q=0"])
def test_who_takes_gzip(accepted: bytes) -> None:
    """Whoever names it, in whatever case and place, whatever else they take."""
    assert takes_gzip(accepted)


@pytest.mark.parametrize("accepted", [b"gzip;q=0", b"gzip; q=0", b"GZIP;Q=0.0", b"br, gzip ; q=0.000", b"xgzip", b""])
def test_who_takes_no_gzip(accepted: bytes) -> None:
    """A weight of zero is a refusal, however it is written (RFC 9110, 12.5.3)."""
    assert not takes_gzip(accepted)
