"""The short way that most requests take through the gateway: it lets nobody in whom the long one would refuse."""

import asyncio
import base64
import hmac
import os
import re
import signal
import time
from pathlib import Path

import pytest

from mooring.errors import Unauthenticated
from mooring.gateway.authority import LocalAuthority
from mooring.model.grants import Grants, verify
from mooring.model.routes import Access, Filters, HeaderFilter, Route
from mooring.model.routes import Backend as Target
from support.grants import DAY_S, GRANTS, KEY, cookie
from support.nginx import Backend, Gateway, backend, gateway, parse

COOKIE_BYTES = 3900
STRANGERS = 6000
MOST_GROWTH_MB = 20
MOST_LABELS = 1000


def guarded(running: Backend, name: str = "one", **more: object) -> Route:
    """A plain route that only ann may enter."""
    access = Access(kind="subjects", subjects=("ann",))
    values = {"name": name, "host": "a.test", "backends": (Target(address=running.address),), "access": access}
    return Route(**values | more)


@pytest.fixture
async def running():  # noqa: ANN201 - an async fixture
    """A backend that tells what it was asked."""
    async with backend() as started:
        yield started


@pytest.fixture
async def edge(tmp_path: Path, running: Backend):  # noqa: ANN201 - an async fixture
    """A gateway of one worker with one plain route."""
    async with gateway(tmp_path, workers=1) as started:
        await started.publish(guarded(running), grants=GRANTS)
        yield started


USUAL = {"Cookie": cookie("a.test")}


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        ("/some/path?q=%2f..", USUAL, 200),
        ("//", USUAL | {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Accept": "*/*"}, 200),
        ("/", USUAL | {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, 200),
        ("/%41/.hidden", USUAL, 200),
        ("/%2e%2e/x", USUAL, 400),
        ("/a/../b", USUAL, 400),
        ("/a;/..;/b", USUAL, 400),
        ("/a/../b", USUAL | {"Sec-Fetch-Site": "none cors /ok a.test a.test  none cors "}, 400),
        ("/a/../b", USUAL | {"Sec-Fetch-Mode": "cors /ok a.test a.test  none cors "}, 400),
        ("/a/../b", USUAL | {"Authorization": "none cors /ok a.test a.test  none cors "}, 400),
        ("/.mooring/x", USUAL, 502),
        ("/", {}, 401),
        ("/", {"Cookie": cookie("b.test")}, 401),
        ("/", {"Cookie": cookie("a.test") + "x"}, 401),
        ("/", {"Cookie": cookie("a.test", seconds=-1)}, 401),
        ("/", {"Cookie": cookie("a.test", subject="bob")}, 403),
        ("/", USUAL | {"Authorization": "Bearer none"}, 200),
        ("/", USUAL | {"Host": "b.test"}, 404),
    ],
)
async def test_what_is_decided_on_either_way_is_the_same(
    edge: Gateway, path: str, sent: dict[str, str], status: int
) -> None:
    """The long way is taken for a header that means nothing here, too: whichever it is, the answer is one."""
    host = sent.get("Host", "a.test")
    rest = {name: value for name, value in sent.items() if name != "Host"}
    assert (await edge.ask("GET", host, path, rest)).status == status
    assert (await edge.ask("GET", host.upper(), path, rest)).status == status


@pytest.mark.parametrize(
    "path", ["/a" * 15_000, "/" * 30_000, "/" + "a" * 30_000, "/?" + "b" * 30_000, "/a" * 15_000 + "/."]
)
async def test_the_longest_path_is_no_line_of_the_log(edge: Gateway, tmp_path: Path, path: str) -> None:
    """Whoever could fill the error log with paths that are too much for a pattern would fill the disk."""
    answer = await edge.ask("GET", "a.test", path, USUAL | {"Accept": "b" * 3_000})
    assert answer.status == (400 if path.endswith(".") else 200)
    (log,) = tmp_path.rglob("error.log")
    assert "pcre" not in log.read_text()


def changed(value: str) -> list[str]:
    """The cookie's value with each of its characters gone, another one, twice, and as its last."""
    found = []
    for at in range(len(value)):
        other = "A" if value[at] != "A" else "B"
        found += [value[:at] + value[at + 1 :], value[:at] + other + value[at + 1 :], value[: at + 1]]
        found.append(value[:at] + value[at] + value[at:])
    return found


def signed(text: str) -> str:
    """Any text with our signature."""
    mac = hmac.digest(KEY.secret, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def strange() -> list[str]:
    """Texts that only we could have signed, and never would."""
    late, host = int(time.time()) + DAY_S, "a_test"
    parts = ("", "v1", "v1.k1", "v1.k1.", "v1.k1.s1", "v1.k1.s1.ann", f"v1.k1.s1.ann.{host}", f"v1.k1.s1.ann.{host}.")
    ends = (f"{late}x", f"x{late}", "-1", " ", f"{late}.", f".{late}", f"{late}.{late}", "1e99")
    named = (
        f"v1.k1.s1.ann.{host}x.{late}",
        f"v1.k1.s1.ann.x{host}.{late}",
        f"v1.k1.s1.ann.a.{late}",
        f"v1..s1.ann.{host}.{late}",
    )
    whole = (
        f"v2.k1.s1.ann.{host}.{late}",
        f"v1.k1.{'s' * 300}.ann.{host}.{late}",
        f"v1.k1.s1.{'n' * 990}.{host}.{late}",
    )
    return [signed(text) for text in (*parts, *(f"v1.k1.s1.ann.{host}.{end}" for end in ends), *named, *whole)]


async def test_what_nobody_signed_is_nobodys(edge: Gateway, tmp_path: Path) -> None:
    """Whatever is done to a good cookie, and whatever odd text our own key signed, alone or beside another cookie."""
    good = cookie("a.test").removeprefix("mooring=")
    assert (await edge.get("a.test", Cookie=f"mooring={good}")).status == 200
    for value in [*changed(good), *strange()]:
        if value == good:
            continue
        with pytest.raises(Unauthenticated):
            verify(value, (KEY,), audience="a.test", now=time.time())
        assert (await edge.get("a.test", Cookie=f"mooring={value}")).status == 401, value
        assert (await edge.get("a.test", Cookie=f"x=1; mooring={value}")).status == 401, value
    (log,) = tmp_path.rglob("error.log")
    assert "lua" not in log.read_text()


async def test_a_session_is_looked_at_again_for_every_request(edge: Gateway) -> None:
    """On one connection, with one header: let in, refused once it is revoked, and the other until no key is left."""
    first, second = cookie("a.test", session="s1"), cookie("a.test", session="s2")
    reader, writer = await edge.connect()
    assert await kept(edge, reader, writer, first) == 200
    await edge.publish(grants=Grants(GRANTS.keys, GRANTS.tokens, revoked=(("s1", 2**31),)))
    assert await kept(edge, reader, writer, first) == 401
    assert await kept(edge, reader, writer, second) == 200
    await edge.publish(grants=Grants((), GRANTS.tokens))
    assert await kept(edge, reader, writer, second) == 401
    writer.close()


async def kept(edge: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: str) -> int:
    """The status of a request on a connection that stays open."""
    writer.write(f"GET / HTTP/1.1\r\nHost: {edge.authority('a.test')}\r\nCookie: {sent}\r\n\r\n".encode())
    reply = parse(await reader.readuntil(b"\r\n\r\n"))
    await reader.readexactly(int(reply.headers["content-length"]))
    return reply.status


async def test_a_session_ends_on_its_second(edge: Gateway) -> None:
    """A header that was good a moment ago is not good for longer than it says."""
    ends = int(time.time()) + 2
    header = cookie("a.test", seconds=2)
    statuses = set()
    while time.time() < ends + 1.5:
        statuses.add((await edge.get("a.test", Cookie=header)).status)
        await asyncio.sleep(0.1)
    assert statuses == {200, 401}
    assert (await edge.get("a.test", Cookie=header)).status == 401


async def test_one_header_is_good_for_its_own_host_alone(edge: Gateway, running: Backend) -> None:
    """Whichever of two hosts is asked first, in turn."""
    await edge.publish(guarded(running, "two", host="b.test"))
    header = cookie("a.test")
    asked = [(await edge.get(host, Cookie=header)).status for host in ("b.test", "a.test", "b.test", "a.test")]
    assert asked == [401, 200, 401, 200]


async def test_with_tls_only_the_cookie_that_neighbours_cannot_set_counts(tmp_path: Path, running: Backend) -> None:
    """What is good over http is nobody's over https."""
    async with gateway(tmp_path, tls=True, workers=1) as edge:
        await edge.sink.certificate(LocalAuthority(tmp_path / "tls", "mooring.test").pem())
        await edge.publish(guarded(running), grants=GRANTS)
        plain = cookie("a.test")
        assert (await edge.get("a.test", Cookie=plain)).status == 401
        assert (await edge.get("a.test", Cookie=f"__Host-{plain}")).status == 200


async def test_a_route_that_becomes_plain_or_stops_being_so_is_served_as_it_is_now(
    edge: Gateway, running: Backend
) -> None:
    """Each kind is stored in its own way; what is left of the other must not be read."""
    filtered = Filters(response_headers=HeaderFilter(set={"x-filter": "yes"}))
    for _ in range(2):
        await edge.publish(guarded(running, filters=filtered))
        assert "x-filter" in (await edge.get("a.test", **USUAL)).headers
        await edge.publish(guarded(running))
        assert "x-filter" not in (await edge.get("a.test", **USUAL)).headers
    await edge.remove("one")
    assert (await edge.get("a.test", **USUAL)).status == 404


async def test_strangers_cannot_fill_a_worker(edge: Gateway, running: Backend) -> None:
    """Whatever they put into their cookies and tokens, a worker keeps a few megabytes of it."""
    await edge.publish(guarded(running, "open", host="c.test", access=Access(kind="public")))
    (pid,) = (await edge.sink.read()).workers
    before = own_megabytes(pid)
    reader, writer = await edge.connect()
    for number in range(STRANGERS):
        ours = ";".join(f"mooring={number}-{i}" for i in range(40))
        text = f"{ours};x={number}".ljust(COOKIE_BYTES, "y")
        head = f"Host: {edge.authority('c.test')}\r\nCookie: {text}\r\nAuthorization: Bearer {number:0128d}"
        writer.write(f"HEAD / HTTP/1.1\r\n{head}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert own_megabytes(pid) - before < MOST_GROWTH_MB


def own_megabytes(pid: int) -> float:
    """The heap and the anonymous memory of a process."""
    status = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(status[1]) - int(status[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def test_only_so_many_routes_have_counters_of_their_own(edge: Gateway, running: Backend) -> None:
    """The others are counted together, none twice and none not at all, by the worker that follows a killed one too."""
    hosts = [f"h{number}.test" for number in range(1050)]
    target = (Target(address=running.address),)
    await edge.publish(*(Route(name=host, host=host, backends=target, access=Access(kind="public")) for host in hosts))
    for times in (1, 2):
        reader, writer = await edge.connect()
        for host in hosts:
            writer.write(f"HEAD / HTTP/1.1\r\nHost: {edge.authority(host)}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        writer.close()
        counts = await counted(edge, times * len(hosts))
        assert len(counts) == MOST_LABELS + 1
        own = [count for route, count in counts.items() if route != "_other"]
        assert own == [times] * MOST_LABELS
        await replaced_worker(edge)


async def counted(edge: Gateway, wanted: int) -> dict[str, int]:
    """Requests by route, once there are that many."""
    async with asyncio.timeout(10):
        while True:
            text = (await edge.sink.read()).metrics
            found = re.findall(r'^mooring_route_requests_total\{route="([^"]*)",code="2xx"\} (\d+)', text, re.MULTILINE)
            counts = {route: int(count) for route, count in found if int(count)}
            if sum(counts.values()) == wanted:
                return counts
            await asyncio.sleep(0.1)


async def replaced_worker(edge: Gateway) -> None:
    """Kill the only worker and wait for the next one."""
    (before,) = (await edge.sink.read()).workers
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(10):
        while not (after := (await edge.sink.read()).workers) or before in after:
            await asyncio.sleep(0.05)
