"""Thousands of mixed requests at once, while routes and keys change: each answer is the one that Python says."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.errors import Unauthenticated
from mooring.model.grants import COOKIE, SECURE_COOKIE, Claims, Grants, SigningKey, verify
from mooring.model.routes import Access, Route
from mooring.model.routes import Backend as Target
from support.grants import GRANTS, KEY, cookie
from support.nginx import Gateway, Reply, Request, backend, gateway, ok, parse

OTHER_KEY = SigningKey("k2" * 20, b"another secret of thirty-two b.", 2**31)
KEYS = (KEY, OTHER_KEY)
GONE = "gone" * 30
SWAPPED = "swap.test"
LONG = ".".join(("x" * 60, "y" * 60, "z" * 60, "w" * 50, "test"))
OWNERS = {
    "a.test": "ann", LONG: "ann", "prefix.test": "an", "longer.test": "a" * 253, "unix.test": "ann",
    "x.localhost": "ann", SWAPPED: "ann", "public.test": None, "slow.test": None, "anybody.test": "",
}  # fmt: skip
"""Whose a host is: None is everybody's, nothing whoever's is signed in."""
CLIENTS, EACH, STRANGERS, SWAPS = 24, 120, 500, 150


@dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    host: str
    cookies: str
    more: str


def drawn(order: random.Random) -> Sent:
    """A request for one of the hosts, with a cookie that is good for it, nearly so, or nothing of the kind."""
    host = order.choice([*OWNERS, f"s{order.randrange(STRANGERS)}.strange.test"])
    more = order.choice([""] * 6 + ["Accept: text/html\r\n", "Sec-Fetch-Site: none\r\n", "Authorization: Bearer x\r\n"])
    return Sent(order.choice(["GET", "GET", "HEAD", "OPTIONS"]), host, order.choice(cookies(order, host)), more)


def cookies(order: random.Random, host: str) -> list[str]:
    """Cookie headers."""
    subject = OWNERS.get(host, "bob") or "ann"
    key = order.choice(KEYS)
    good = cookie(host, subject, key=key, seconds=500)
    name, _, value = good.partition("=")
    wrong = [
        cookie(host, order.choice(["an", "ann", "annn", "a" * 253, "bob"]), key=key, seconds=500),
        cookie("a.test", subject, key=key, seconds=500),
        cookie(host, subject, key=key, seconds=-5),
        cookie(host, subject, key=key, seconds=500, session=GONE),
        *(good[:-1], good + "A", good.upper(), value, f"={good}", good.replace(".", "..", 1), f"__Host-{good}"),
        *(f"{name}={rest}" for rest in ("", "v1.", "v1." + "A" * 43, "v1.k." + "A" * 43, "v1" + "." * 60, "x" * 44)),
        *("", ";;;", "a" + " " * 9000 + "b", "z" * 20_000, "q;" * 3000),
    ]
    beside = [
        f"x=1; {good}; y",
        f"y={'q' * order.randrange(5000)}; {good}",
        f"{name}=v1.x; " * 6 + good,
        f"{good};{good}",
    ]
    return [*[good] * 8, *beside, f"{name} = {value}", *wrong]


def split(header: str) -> tuple[list[tuple[str, str]], str]:
    """Our cookies, and what a backend may see."""
    ours, rest = [], []
    for pair in (part.strip() for part in header.split(";") if part):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if equals and name in (COOKIE, SECURE_COOKIE):
            ours.append((name, value))
        else:
            rest.append(pair)
    return ours, "; ".join(rest)


def known(host: str, ours: list[tuple[str, str]]) -> Claims | None:
    """Who sends it."""
    wanted = SECURE_COOKIE if host.endswith(".localhost") else COOKIE
    for value in (value for name, value in ours if name == wanted):
        try:
            claims = verify(value, KEYS, audience=host, now=time.time())
        except Unauthenticated:
            continue
        if claims.session != GONE:
            return claims
    return None


def statuses(sent: Sent) -> tuple[int, ...]:
    """What the answer to it may be."""
    owner = OWNERS.get(sent.host, "bob")
    claims = known(sent.host, split(sent.cookies)[0])
    if owner is None:
        return (200,)
    if claims is None:
        return (401, 302)
    return (200,) if owner in ("", claims.subject) else (403,)


@asynccontextmanager
async def named(name: str, seconds: float = 0, unix: Path | None = None) -> AsyncIterator[Target]:
    """A backend that says its name, the host, and the cookies that it was sent."""

    async def answer(request: Request) -> bytes:
        await asyncio.sleep(seconds)
        return ok(f"{name}|{request.header('host')}|{request.header('cookie') or ''}".encode())

    async with backend(answer, unix=unix) as running:
        yield Target(unix=running.address) if unix else Target(address=running.address)


def route(host: str, target: Target, name: str = "") -> Route:
    """The plain route of a host."""
    owner = OWNERS.get(host, "bob")
    kind = Access(kind="public") if owner is None else Access()
    access = Access(kind="subjects", subjects=(owner,)) if owner else kind
    return Route(name=name or host, host=host, backends=(target,), access=access)


@dataclass
class World:
    """A gateway in front of named backends; `seen` are the statuses, `wrong` what should not have been."""

    edge: Gateway
    targets: dict[str, Target]
    seen: Counter[int]
    wrong: list[object]

    def backends(self, host: str) -> set[str]:
        """The names of those that may answer for it."""
        special = {"unix.test": {"unix"}, "slow.test": {"slow"}, SWAPPED: {"zero", "one", "two"}}
        return special.get(host, {"two"} if host.endswith(".strange.test") else {"zero"})

    def judge(self, sent: Sent, reply: Reply) -> None:
        """Compare."""
        self.seen[reply.status] += 1
        good = reply.status in statuses(sent)
        if good and reply.status == 200 and sent.method != "HEAD":
            name, host, rest = reply.body.decode("latin1").split("|", 2)
            good = name in self.backends(sent.host) and host == self.edge.authority(sent.host)
            good = good and rest == split(sent.cookies)[1]
        if not good:
            self.wrong.append((sent, reply))

    async def client(self, order: random.Random) -> None:
        """Ask, on a connection that is kept, and sometimes left in the middle."""
        reader, writer = await self.edge.connect()
        for _ in range(EACH):
            sent = drawn(order)
            cookie_line = f"Cookie: {sent.cookies}\r\n" if sent.cookies else ""
            head = (
                f"{sent.method} /p HTTP/1.1\r\nHost: {self.edge.authority(sent.host)}\r\n{sent.more}{cookie_line}\r\n"
            )
            writer.write(head.encode())
            if order.random() < 0.03:
                writer.transport.abort()
                reader, writer = await self.edge.connect()
                continue
            reply = parse(await reader.readuntil(b"\r\n\r\n"))
            if sent.method != "HEAD":
                reply.body = await reader.readexactly(int(reply.headers["content-length"]))
            self.judge(sent, reply)
        writer.transport.abort()

    async def change(self) -> None:
        """Move a route from one backend to the next, and turn the keys over."""
        for number in range(SWAPS):
            target = self.targets[("zero", "one", "two")[number % 3]]
            keys = KEYS if number % 2 else KEYS[::-1]
            grants = Grants(keys, GRANTS.tokens, ((GONE, 2**31), (f"s{number}" * 20, 2**31)))
            await self.edge.publish(route(SWAPPED, target, "r" * 253), grants=None if number % 5 else grants)
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """Every kind of host, and strangers' ones."""
    async with AsyncExitStack() as stack:
        targets = {name: await stack.enter_async_context(named(name)) for name in ("zero", "one", "two")}
        targets["slow"] = await stack.enter_async_context(named("slow", 0.02))
        targets["unix"] = await stack.enter_async_context(named("unix", unix=tmp_path / "socket"))
        edge = await stack.enter_async_context(gateway(tmp_path, workers=2))
        special = {"unix.test": "unix", "slow.test": "slow"}
        routes = [route(host, targets[special.get(host, "zero")]) for host in OWNERS if host != SWAPPED]
        strange = [route(f"s{number}.strange.test", targets["two"]) for number in range(STRANGERS)]
        first = route(SWAPPED, targets["zero"], "r" * 253)
        await edge.publish(*routes, *strange, first, grants=Grants(KEYS, GRANTS.tokens, ((GONE, 2**31),)))
        yield World(edge, targets, Counter(), [])


async def test_each_answer_is_the_one_that_python_says(world: World, tmp_path: Path) -> None:
    """The right backend and status, no cookie of ours behind the gateway, and no line in the error log."""
    async with Tasks("clients") as tasks, asyncio.timeout(120):
        running = [tasks.spawn("client", world.client(random.Random(seed))) for seed in range(CLIENTS)]  # noqa: S311
        running.append(tasks.spawn("change", world.change()))
        for task in running:
            await task
    assert world.wrong == []
    assert {200, 401, 403} <= world.seen.keys()
    (log,) = tmp_path.rglob("error.log")
    assert [line for line in log.read_text().splitlines() if "[notice]" not in line] == []
