"""The stream from the server, against a server of bytes on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mooring.gateway.stream import StreamSource
from mooring.model.grants import Grants, SigningKey
from mooring.routes.ports import Revision, SectionChange
from mooring.routes.wire import Ping, Synced
from support.following import following, until
from support.routes import stopped
from support.section_server import TOKEN, SectionServer, section_server

GRANTS = Grants(keys=(SigningKey("k", b"0" * 32, 9),))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SectionServer]:
    """A server with one section and grants."""
    async with section_server(tmp_path) as started:
        started.snapshot = (section("workspaces", "a", "b", grants=GRANTS, rank=10), Synced())
        yield started


def section(source: str, *names: str, number: int = 1, **more: object) -> SectionChange:
    """A complete section of stopped routes."""
    routes = tuple(stopped(name) for name in names)
    return SectionChange(source, routes, complete=True, revision=Revision("e", number), **more)


async def test_the_snapshot_and_the_changes_arrive(server: SectionServer) -> None:
    """Sections with their ranks, revisions and grants, then what changes; the age is young."""
    async with following(StreamSource(server.link())) as followed:
        await until(lambda: followed.source.stale_s() < 5)
        assert set(followed.routes) == {"a", "b"}
        assert followed.table.grants == GRANTS
        assert (followed.changes[0].rank, followed.changes[0].revision) == (10, Revision("e", 1))
        await server.send(SectionChange("workspaces", (stopped("c"),), ("a",)), section("team", "d"))
        await until(lambda: set(followed.routes) == {"b", "c", "d"})
        assert followed.source.problems() == ()
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_line_may_come_in_pieces(server: SectionServer) -> None:
    """Where the network cuts makes no difference."""
    async with following(StreamSource(server.link())) as followed:
        await until(lambda: followed.routes)
        raw = b'{"type":"change","source":"workspaces","deletes":["a"]}\n{"type":"ping","revision":["e",2],'
        for n in range(len(raw)):
            await server.send_raw(raw[n : n + 1])
        await server.send_raw(b'"grants_for_s":60}\n')
        await until(lambda: set(followed.routes) == {"b"})


async def test_over_tcp_by_url(tmp_path: Path) -> None:
    """A gateway on another machine reads the same stream."""
    server = SectionServer(tmp_path)
    server.snapshot = (section("workspaces", "a"), Synced())
    url = await server.start(port=True)
    try:
        async with following(StreamSource(server.link(socket=None, url=url))) as followed:
            await until(lambda: followed.routes)
    finally:
        await server.stop()


async def test_a_broken_connection_is_made_again_and_keeps_the_routes(server: SectionServer) -> None:
    """While the server is away the last good routes stay and the age rises; what changed meanwhile comes after."""
    async with following(StreamSource(server.link())) as followed:
        await until(lambda: followed.routes)
        await server.stop()
        await until(followed.source.problems)
        assert set(followed.routes) == {"a", "b"}
        before = followed.source.stale_s()
        await until(lambda: followed.source.stale_s() > before + 0.2)
        server.snapshot = (section("workspaces", "z"), Synced())
        await server.start()
        await until(lambda: set(followed.routes) == {"z"} and not followed.source.problems())


async def test_a_section_that_the_server_has_no_more_is_dropped_once_it_is_synced(server: SectionServer) -> None:
    """Also one that only an earlier life of the gateway knew, and not before the snapshot is complete."""
    server.snapshot = (section("workspaces", "a"),)
    async with following(StreamSource(server.link(), known=("old",))) as followed:
        followed.table.apply(section("old", "stale"), 1)
        await until(lambda: set(followed.routes) == {"a", "stale"})
        assert followed.source.stale_s() == float("inf")
        await server.send(section("team", "t"), Synced())
        await until(lambda: set(followed.routes) == {"a", "t"})
        server.snapshot = (section("workspaces", "a"), Synced())
        server.drop()
        await until(lambda: set(followed.routes) == {"a"})


async def test_a_silent_server_is_given_up_and_asked_again(server: SectionServer) -> None:
    """A connection that looks open but brings nothing is not trusted for longer than the pings allow."""
    async with following(StreamSource(server.link(silence_s=0.3))) as followed:
        await until(lambda: len(server.requests) >= 3)
        await until(followed.source.problems)
        assert set(followed.routes) == {"a", "b"}


async def test_pings_keep_the_stream_and_the_grants(server: SectionServer) -> None:
    """With pings one connection lasts longer than both deadlines."""
    async with following(StreamSource(server.link(silence_s=2.0, grants_s=2.0))) as followed:
        await until(lambda: followed.routes)
        end = asyncio.get_running_loop().time() + 3
        while asyncio.get_running_loop().time() < end:
            await server.send(Ping(Revision("e", 1), 2.0))
            await asyncio.sleep(0.1)
        assert followed.table.grants == GRANTS
        assert len(server.requests) == 1


async def test_grants_end_when_nothing_is_heard(server: SectionServer) -> None:
    """A server that is gone, or whose connection cannot be made, ends them as well as one that is silent."""
    async with following(StreamSource(server.link(grants_s=0.5))) as followed:
        await until(lambda: followed.table.grants == GRANTS)
        await server.stop()
        await until(lambda: followed.table.grants == Grants())
        assert set(followed.routes) == {"a", "b"}
        await server.start()
        await until(lambda: followed.table.grants == GRANTS)


async def test_a_ping_may_say_that_grants_end_sooner(server: SectionServer) -> None:
    """The server may shorten what the gateway would allow; after the end they are asked for anew, and come again."""
    async with following(StreamSource(server.link(grants_s=3600))) as followed:
        await until(lambda: followed.table.grants == GRANTS)
        await server.send(Ping(Revision("e", 1), 0.1))
        await until(lambda: any(change.grants == Grants() for change in followed.changes))
        await until(lambda: followed.table.grants == GRANTS)
        assert len(server.requests) == 2
        assert set(followed.routes) == {"a", "b"}


async def test_a_bad_line_keeps_what_was_good(server: SectionServer) -> None:
    """It is named with its field, the connection is made again, and nothing of the line is applied."""
    async with following(StreamSource(server.link())) as followed:
        await until(lambda: followed.routes)
        server.snapshot = ()
        await server.send_raw(b'{"type":"change","source":"workspaces","upserts":[{"name":"x","host":"UP"}]}\n')
        await until(lambda: any("upserts.0.host" in problem for problem in followed.source.problems()))
        await until(lambda: len(server.requests) == 2)
        assert set(followed.routes) == {"a", "b"}


async def test_a_refused_credential_says_what_to_do_and_a_new_one_is_used(server: SectionServer) -> None:
    """The credential's file is read for each connection."""
    server.token_file.write_text("wrong")
    async with following(StreamSource(server.link())) as followed:
        await until(followed.source.problems)
        assert str(server.token_file) in followed.source.problems()[0]
        server.token_file.write_text(TOKEN)
        await until(lambda: followed.routes)


@pytest.mark.parametrize("content", [None, "", "two\nlines", "\x00"])
async def test_an_unusable_credential_is_a_problem(server: SectionServer, content: str | None) -> None:
    """No file, no text, or text that would break a header: said, and tried again later."""
    server.token_file.unlink() if content is None else server.token_file.write_text(content)
    async with following(StreamSource(server.link())) as followed:
        await until(followed.source.problems)
        assert not server.requests
        server.token_file.write_text(TOKEN)
        await until(lambda: followed.routes)


async def test_another_status_is_a_problem(server: SectionServer) -> None:
    """A server that is starting answers 503 for a while."""
    server.status = 503
    async with following(StreamSource(server.link())) as followed:
        await until(followed.source.problems)
        assert "503" in followed.source.problems()[0]
        server.status = 200
        await until(lambda: followed.routes)
