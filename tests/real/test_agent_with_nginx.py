"""The agent, fed by a stream, a file and Redis, above a real nginx."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mooring.control.tasks import Tasks
from mooring.discovery.file import FileSource
from mooring.discovery.redis import RedisSource
from mooring.gateway.nginx import NginxSink
from mooring.gateway.service import Agent
from mooring.gateway.snapshot import Snapshot
from mooring.gateway.stream import StreamSource
from mooring.model.routes import Access, Backend, Filters, Redirect, Route
from mooring.routes.ports import Revision, RouteSource, SectionChange
from mooring.routes.wire import Synced
from mooring.settings import FileSource as FileSettings
from mooring.settings import RedisSource as RedisSettings
from support.following import PATIENCE_S
from support.nginx import Gateway, backend, gateway
from support.redis import redis_server
from support.section_server import SectionServer, section_server
from support.sinks import SMALL


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A running nginx without a table."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    async with gateway(folder) as started:
        yield started


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SectionServer]:
    """A server whose section the tests set."""
    async with section_server(tmp_path) as started:
        yield started


def redirect(name: str, to: str = "", **more: object) -> Route:
    """A public route of the host `<name>.test` that answers with a redirect."""
    filters = Filters(redirect=Redirect(path=f"/{to or name}"))
    return Route(name=name, host=f"{name}.test", filters=filters, access=Access(kind="public"), **more)


def snapshot(*routes: Route, number: int = 1) -> tuple[SectionChange, Synced]:
    """All that the server has."""
    return SectionChange("workspaces", routes, complete=True, rank=10, revision=Revision("server", number)), Synced()


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[Agent]:
    """Run the agent meanwhile."""
    async with Tasks("agent") as tasks:
        agent.start(tasks)
        yield agent


async def answers(nginx: Gateway, name: str, expected: str | None) -> None:
    """Wait until the host `<name>.test` redirects to `expected`."""
    seen: str | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reply = await nginx.get(f"{name}.test")
                seen = urlsplit(reply.headers["location"]).path[1:] if reply.status == 302 else None
                if seen == expected:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{name}.test goes to {seen}, not to {expected}") from None


async def test_what_the_server_streams_is_what_nginx_answers(nginx: Gateway, server: SectionServer) -> None:
    """A snapshot and a change are live, and the agent names the stream's revision once they are."""
    server.snapshot = snapshot(redirect("a"), redirect("b"))
    agent = Agent((StreamSource(server.link()),), nginx.sink)
    async with running(agent):
        await answers(nginx, "a", "a")
        change = SectionChange("workspaces", (redirect("a", "new"),), ("b",), revision=Revision("server", 2))
        await server.send(change)
        await answers(nginx, "a", "new")
        await answers(nginx, "b", None)
        async with asyncio.timeout(PATIENCE_S):
            while agent.applied() != Revision("server", 2):
                await asyncio.sleep(0.02)


async def test_a_killed_nginx_has_every_route_again(nginx: Gateway, server: SectionServer) -> None:
    """Nothing changes meanwhile, and the server is away: the agent itself sees that nginx is a fresh one."""
    server.snapshot = snapshot(*(redirect(f"r{n}") for n in range(200)))
    async with running(Agent((StreamSource(server.link()),), nginx.sink)):
        await answers(nginx, "r199", "r199")
        await server.stop()
        await nginx.killed()
        for name in ("r0", "r100", "r199"):
            await answers(nginx, name, name)


async def test_the_table_does_not_fit_and_then_does(server: SectionServer, tmp_path: Path) -> None:
    """Until what is too much goes, the others are served and their changes are live."""
    big = [redirect(f"big{n}", path="/" + "x" * 4000) for n in range(60)]
    server.snapshot = snapshot(*big[:30], redirect("a"), *big[30:])
    folder = tmp_path / "gateway"
    folder.mkdir()
    async with (
        gateway(folder, table_bytes=SMALL) as nginx,
        running(Agent((StreamSource(server.link()),), nginx.sink)) as agent,
    ):
        await answers(nginx, "a", "a")
        async with asyncio.timeout(PATIENCE_S):
            while not any("do not fit" in problem for problem in agent.problems()):
                await asyncio.sleep(0.02)
        await server.send(SectionChange("workspaces", (redirect("a", "b"),)))
        await answers(nginx, "a", "b")
        assert agent.applied() is None
        gone = tuple(route.name for route in big)
        await server.send(SectionChange("workspaces", deletes=gone, revision=Revision("server", 2)))
        async with asyncio.timeout(PATIENCE_S):
            while any("do not fit" in problem for problem in agent.problems()):
                await asyncio.sleep(0.02)
        assert agent.applied() == Revision("server", 2)


async def test_all_sources_together_and_a_start_without_any(
    nginx: Gateway, server: SectionServer, tmp_path: Path
) -> None:
    """The stream, a file and Redis make one table; the next agent serves it while all three are away."""
    kept = Snapshot(tmp_path / "table.ndjson", debounce_s=0.01)
    path = tmp_path / "routes.yaml"
    path.write_text(
        "routes:\n- name: f\n  host: f.test\n  access: {kind: public}\n  filters: {redirect: {path: /f}}\n"
        "- name: loses\n  host: a.test\n  access: {kind: public}\n  filters: {redirect: {path: /loses}}\n"
    )
    server.snapshot = snapshot(redirect("a"))
    async with redis_server(tmp_path) as redis, backend() as target, redis.client() as client:
        await client.hset("hosts", "field", target.address)
        settings = RedisSettings("ws.test", url=redis.url, access=Access(kind="public"))
        sources = (StreamSource(server.link()), FileSource(FileSettings(path)), RedisSource(settings))
        async with running(Agent(sources, nginx.sink, snapshot=kept)) as agent:
            await answers(nginx, "a", "a")
            await answers(nginx, "f", "f")
            await reaches(nginx, "/ws/field/deep")
            assert any("loses" in problem for problem in agent.problems())
            await nginx.killed()
            await reaches(nginx, "/ws/field/deep")
        await redis.kill()
        await server.stop()
        path.unlink()
        await nginx.killed()
        away: Sequence[RouteSource] = (
            StreamSource(server.link()),
            FileSource(FileSettings(path)),
            RedisSource(settings),
        )
        async with running(Agent(away, nginx.sink, snapshot=kept, restored=kept.load())):
            await answers(nginx, "a", "a")
            await answers(nginx, "f", "f")
            await reaches(nginx, "/ws/field/deep")


async def reaches(nginx: Gateway, path: str) -> None:
    """Wait until the backend of Redis' field answers."""
    async with asyncio.timeout(PATIENCE_S):
        while (await nginx.get("ws.test", path)).status != 200:
            await asyncio.sleep(0.02)


async def test_a_new_agent_leaves_the_table_that_nginx_has(
    nginx: Gateway, server: SectionServer, tmp_path: Path
) -> None:
    """An agent that is killed and started again interrupts no request, also of addresses that it must withhold."""
    kept = Snapshot(tmp_path / "table.ndjson", debounce_s=0.01)
    async with backend() as target:
        own = Route(
            name="w",
            host="w.test",
            access=Access(kind="public"),
            backends=(Backend(address=target.address, identity="abcdefghij"),),
        )
        server.snapshot = snapshot(own)
        async with running(Agent((StreamSource(server.link()),), nginx.sink, snapshot=kept)):
            await serves(nginx, "w.test")
            async with asyncio.timeout(PATIENCE_S):
                while not kept.load():
                    await asyncio.sleep(0.02)
        await server.stop()
        again = NginxSink(nginx.home.gateway_socket)
        try:
            async with running(Agent((StreamSource(server.link()),), again, snapshot=kept, restored=kept.load())):
                for _ in range(20):
                    assert (await nginx.get("w.test")).status == 200
                    await asyncio.sleep(0.02)
                await server.start()
                server.snapshot = snapshot(own, redirect("late"))
                server.drop()
                await answers(nginx, "late", "late")
                assert (await nginx.get("w.test")).status == 200
        finally:
            await again.close()


async def serves(nginx: Gateway, host: str) -> None:
    """Wait until that host's backend answers."""
    async with asyncio.timeout(PATIENCE_S):
        while (await nginx.get(host)).status != 200:
            await asyncio.sleep(0.02)
