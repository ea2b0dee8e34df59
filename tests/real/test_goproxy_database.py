"""The checksum database behind the proxy, as many clients at once see it."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.goproxy.config import Config
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.tlog import Tile
from mooring.server.goproxy import Served
from support.goproxies import get, running
from support.goupstream import DATABASE, Fault, Upstream, go

CLIENTS = 40
RECORDS = 300


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """With a database of a full tile and a part of one."""
    with Upstream(tmp_path / "upstream").serving() as served:
        with served.database.exclusive():
            records = [f"example.com/m v1.0.{n} h1:{n}\nexample.com/m v1.0.{n}/go.mod h1:{n}\n" for n in range(RECORDS)]
            served.database.append([record.encode() for record in records])
        yield served


@pytest.fixture
def proxy(tmp_path: Path, upstream: Upstream) -> Iterator[Served]:
    """A proxy in front of it."""
    with running(Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())) as served:
        yield served


@pytest.mark.parametrize(
    "path",
    [
        "tile/8/0/000",
        f"tile/8/0/001.p/{RECORDS - 256}",
        "tile/8/1/000.p/1",
        "tile/8/data/000",
        "tile/4/0/000",
        "latest",
        "lookup/example.com/m@v1.0.7",
    ],
)
def test_many_who_ask_for_the_same_are_one_question(upstream: Upstream, proxy: Served, path: str) -> None:
    """Tiles of hashes and of records, heads and look-ups: asked for by many at once, the upstream is asked once."""
    name = f"sumdb/{DATABASE}/{path}"
    right = upstream.answer(name)
    assert right is not None
    assert get(proxy, f"sumdb/{DATABASE}/supported").status_code == 200
    # The first question of all finds out where the database is.
    assert get(proxy, f"sumdb/{DATABASE}/lookup/example.com/m@v1.0.0").status_code == 200
    before = upstream.asked[name]
    all_asked = threading.Event()
    upstream.faults[name] = Fault(pace=lambda _: all_asked.wait(20) and None)
    clients = [http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=30) for _ in range(CLIENTS)]
    for client in clients:
        client.request("GET", f"/{name}")
    for _ in range(3):
        # Whoever is answered now came after all of them.
        assert get(proxy, "-/healthz").status_code == 200
    all_asked.set()
    assert {client.getresponse().read() for client in clients} == {right}
    for client in clients:
        client.close()
    assert upstream.asked[name] - before <= 1


def test_tiles_on_the_way_to_a_record_are_fetched_together(upstream: Upstream, proxy: Served) -> None:
    """A cold look-up asks for all the tiles that prove its record at the same time."""
    tiles = [Tile(8, 0, 0, 256), Tile(8, 0, 1, RECORDS - 256), Tile(8, 1, 0, 1)]
    names = [f"sumdb/{DATABASE}/{tile.path}" for tile in tiles]
    # Neither of the two that prove the head is answered before both were asked for.
    both = threading.Barrier(2)
    for name in names[1:]:
        upstream.faults[name] = Fault(pace=lambda _: both.wait(20) and None)
    assert get(proxy, f"sumdb/{DATABASE}/lookup/example.com/m@v1.0.7").status_code == 200
    assert [upstream.asked[name] for name in names] == [1, 1, 1]


def test_a_branch_may_have_any_name_that_go_allows(upstream: Upstream, proxy: Served) -> None:
    """What a URL would take for something else reaches the upstream as it is: a number sign, a plus, a space."""
    for branch in ("fix#42", "a+b", "50%", "c&d=e", "with space"):
        wanted = ask("example.com/m", branch, Kind.info)
        upstream.files[wanted.name] = b'{"Version":"v1.0.0","Time":"2026-01-02T03:04:05Z"}'
        sent = wanted.name.replace("%", "%25").replace("#", "%23").replace(" ", "%20").replace("&", "%26")
        answer = get(proxy, sent)
        assert (answer.status_code, answer.content) == (200, upstream.files[wanted.name]), (branch, answer.text)
