"""Usual requests go a short way through Lua, all others a long one: strange ones fare the same on both."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mooring.gateway.authority import LocalAuthority
from mooring.model.grants import Grants
from mooring.model.routes import Access, Route
from mooring.model.routes import Backend as Target
from support.grants import GRANTS, KEY, PROBE_GRANT
from support.http2 import DATA, HEADERS, PREFACE, answered, block, frame, opened
from support.nginx import Gateway, Reply, Request, backend, echo, gateway, ok, parse
from support.strange_requests import GONE, HOSTS, OLD_KEY, Drawer, Sent

AS_IS, LONG = ("Forwarded", "xxx"), ("Upgrade", "xxxxx")
"""Two headers of one length that no backend gets to see. A request with the second one is never usual."""
CONVERSATIONS, CLIENTS = 15, 5
SEED = 20
LONGEST_BLOCK = 16384
LAST = 'mooring_route_requests_total{route="test/last",code="5xx"}'


async def answer(request: Request) -> bytes | None:
    """Tells what was asked, or something that a gateway has to look at."""
    strange = {
        "cookie": ok(b"c", "Set-Cookie: mooring=forged", "Set-Cookie: x=1", "Set-Cookie: __Host-mooring=x"),
        "worker": ok(b"w", "Service-Worker-Allowed: /", "X-Accel-Redirect: /x"),
        "empty": b"HTTP/1.1 204 No Content\r\n\r\n",
        "teapot": b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "gone": None,
    }
    wanted = request.header("x-want") or ""
    return strange[wanted] if wanted in strange else echo(request)


async def received(reader: asyncio.StreamReader, method: str) -> Reply:
    """One answer from a connection that may stay open."""
    reply = parse(await reader.readuntil(b"\r\n\r\n"))
    if method == "HEAD" or reply.status in (204, 304):
        return reply
    if "content-length" in reply.headers:
        reply.body = await reader.readexactly(int(reply.headers["content-length"]))
    elif reply.headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            reply.body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        reply.body = await reader.read()
    return reply


async def conversation(edge: Gateway, requests: list[Sent], mark: tuple[str, str]) -> list[object]:
    """What is answered to each of them, on one connection for as long as it lasts."""
    found: list[object] = []
    reader, writer = await edge.connect()
    for sent in requests:
        if reader.at_eof():
            writer.transport.abort()
            reader, writer = await edge.connect()
        try:
            writer.write(sent.raw(mark))
            reply = await received(reader, sent.method)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            found.append(type(error).__name__)
            reader.feed_eof()
            continue
        told = [pair for pair in reply.values if pair[0] != "date"]
        found.append((reply.status, told, reply.body))
        if reply.headers.get("connection") != "keep-alive":
            reader.feed_eof()
            await reader.read()
    writer.transport.abort()
    return found


async def streams(edge: Gateway, requests: list[Sent], mark: tuple[str, str]) -> list[object]:
    """The same over HTTP/2, one stream after the other."""
    found: list[object] = []
    reader, writer = await opened(edge.port)
    writer.write(PREFACE)
    stream = -1
    for sent in requests:
        fields, stream = block(sent.pairs(mark, "https"))[:LONGEST_BLOCK], stream + 2
        writer.write(frame(HEADERS, 4 if sent.body else 5, stream, fields))
        if sent.body:
            writer.write(frame(DATA, 1, stream, sent.body))
        try:
            found.append(await answered(reader, stream))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            found.append(type(error).__name__)
            writer.transport.abort()
            reader, writer = await opened(edge.port)
            writer.write(PREFACE)
            stream = -1
    writer.transport.abort()
    return found


async def looked_at(edge: Gateway) -> Counter[str]:
    """Requests and bytes by route, refusals by reason."""
    text = (await edge.sink.read()).metrics
    # HTTP/2 packs the digits of an answer's date: some seconds are a byte longer than others.
    sent = "received" if edge.tls else r"\w+"
    kinds = rf"mooring_route_{sent}_bytes|mooring_route_requests|mooring_gateway_refused"
    lines = re.findall(rf"^((?:{kinds})_total\{{.*\}}) (\d+)$", text, re.MULTILINE)
    return Counter({name: int(value) for name, value in lines})


async def counters(edge: Gateway) -> Counter[str]:
    """The same, once nothing comes any more: the worker has told of a request that came after all others."""
    before = (await looked_at(edge))[LAST]
    assert (await edge.get("last.test")).status == 503
    found, older = await looked_at(edge), None
    async with asyncio.timeout(30):
        while found[LAST] == before or found != older:
            await asyncio.sleep(1.2)
            found, older = await looked_at(edge), found
    return Counter({name: count for name, count in found.items() if "test/last" not in name})


@dataclass
class Way:
    """What became of the same requests on one of the ways; counters go on from the way before."""

    answers: list[list[object]]
    counted: Counter[str]
    active: set[str]


async def walked(edge: Gateway, plan: list[list[Sent]], mark: tuple[str, str]) -> Way:
    """All conversations, some at a time."""
    places = asyncio.Semaphore(CLIENTS)
    start = (await edge.sink.read()).activity

    async def held(requests: list[Sent]) -> list[object]:
        async with places, asyncio.timeout(60):
            return await (streams if edge.tls else conversation)(edge, requests, mark)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(held(requests)) for requests in plan]
    counted = await counters(edge)
    active = {name for name, at in (await edge.sink.read()).activity.items() if start.get(name) != at}
    return Way([task.result() for task in running], counted, active)


@asynccontextmanager
async def house(folder: Path, *, tls: bool) -> AsyncIterator[Gateway]:
    """A gateway in front of workspaces, shared, public and anybody's, each on a host with cookies of either kind."""
    async with AsyncExitStack() as stack:
        target = Target(address=(await stack.enter_async_context(backend(answer))).address)
        edge = await stack.enter_async_context(gateway(folder, workers=1, tls=tls))
        if tls:
            await edge.sink.certificate(LocalAuthority(folder / "tls", "w.test").pem())
        kinds = (Access(kind="subjects", subjects=("ann",)), Access(), Access(kind="public"), Access(kind="subjects"))
        hosts = [f"w{number}.{domain}" for number in range(HOSTS) for domain in ("test", "localhost")]
        routes = [
            Route(
                name=host,
                host=host,
                backends=(target,),
                access=kinds[(0, 0, 0, 1, 2, 3)[number // 2 % 6]],
                workspace=f"{number:010}" if number % 4 < 3 else None,
            )
            for number, host in enumerate(hosts)
        ]
        routes.append(Route(name="last", host="last.test", state="stopped", access=Access(kind="public")))
        await edge.publish(*routes, grants=Grants((KEY, OLD_KEY), (*GRANTS.tokens, PROBE_GRANT), ((GONE, 2**31),)))
        yield edge


@pytest.mark.parametrize("tls", [False, True], ids=["http1", "http2"])
async def test_a_strange_request_fares_the_same_on_both_ways(tmp_path: Path, tls: bool) -> None:  # noqa: FBT001
    """Answer, what the backend is told, counters and activity; no worker dies, and the error log stays empty."""
    async with house(tmp_path, tls=tls) as edge:
        workers = (await edge.sink.read()).workers
        drawer = Drawer(SEED, edge.port, "https" if tls else "http")
        plan = [[drawer.sent() for _ in range(drawer.random.randrange(10, 30))] for _ in range(CONVERSATIONS)]
        usual, long = await walked(edge, plan, AS_IS), await walked(edge, plan, LONG)
        for requests, one, other in zip(plan, usual.answers, long.answers, strict=True):
            for sent, first, second in zip(requests, one, other, strict=True):
                assert first == second, sent.raw(AS_IS)
        assert long.counted - usual.counted == +usual.counted
        assert usual.active == long.active
        assert (await edge.sink.read()).workers == workers
    (log,) = tmp_path.rglob("error.log")
    said = log.read_text("latin1")
    assert not re.search(r"lua|signal|\[(?:alert|emerg)\]", said), said
