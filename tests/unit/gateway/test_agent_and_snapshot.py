"""The agent with real sources' shapes and an in-memory sink, and the table that it keeps on disk."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.gateway.memory import MemorySink
from mooring.gateway.service import Agent
from mooring.gateway.snapshot import Snapshot, withhold
from mooring.gateway.stream import StreamSource
from mooring.model.grants import Grants, SigningKey
from mooring.model.routes import Backend, Filters, Redirect, RouteState
from mooring.routes.ports import Delta, Revision, RouteKey, SectionChange
from mooring.routes.table import RouteTable
from mooring.routes.wire import Synced
from support.following import until
from support.routes import serving, stopped
from support.section_server import SectionServer, section_server

OWN = "abcdefghij"
GRANTS = Grants(keys=(SigningKey("k", b"0" * 32, 9),))
FEWER = Grants(GRANTS.keys, revoked=(("s1", 9),))


class ScriptedSource:
    """A source that publishes what a test puts, and may fail or end."""

    def __init__(self, name: str, rank: int = 1) -> None:
        self.name = name
        self.rank = rank
        self.queue: asyncio.Queue[SectionChange | Exception | None] = asyncio.Queue()
        self.age = 0.5

    def stale_s(self) -> float:
        return self.age

    def problems(self) -> tuple[str, ...]:
        return ()

    async def watch(self) -> AsyncGenerator[SectionChange, None]:
        while (item := await self.queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


@asynccontextmanager
async def running(agent: Agent) -> AsyncGenerator[Agent, None]:
    """Run the agent meanwhile."""
    async with Tasks("agent") as tasks:
        agent.start(tasks)
        yield agent


def names(sink: MemorySink) -> set[str]:
    """What the sink serves."""
    return {key.name for key in sink.routes()}


async def test_every_source_ends_in_one_table() -> None:
    """Sections of all sources are merged by their ranks and fed to the sink."""
    first, second, sink = ScriptedSource("workspaces", 1), ScriptedSource("file", 2), MemorySink()
    async with running(Agent((first, second), sink)) as agent:
        second.queue.put_nowait(
            SectionChange("file", (stopped("a"), stopped("mine", host="x.localhost")), complete=True)
        )
        first.queue.put_nowait(SectionChange("workspaces", (stopped("x"),), complete=True, grants=GRANTS))
        await until(lambda: names(sink) == {"a", "x"})
        await until(lambda: agent.live() == agent.table.revision)
        assert agent.stale() == {"workspaces": 0.5, "file": 0.5}
        assert agent.problems() == ("file: mine is not served: x of workspaces goes first",)


async def test_of_very_many_problems_some_are_named() -> None:
    """Each report has all of them: ten thousand lines every two seconds would be read by nobody."""
    first, second = ScriptedSource("workspaces", 1), ScriptedSource("file", 2)
    async with running(Agent((first, second), MemorySink())) as agent:
        both = [tuple(stopped(f"{name}{n}", host=f"h{n}.localhost") for n in range(500)) for name in "ab"]
        first.queue.put_nowait(SectionChange("workspaces", both[0], complete=True))
        second.queue.put_nowait(SectionChange("file", both[1], complete=True))
        await until(agent.problems)
        assert len(agent.problems()) == 21
        assert agent.problems()[-1].startswith("and 480 more like: file: b")


async def test_a_change_may_carry_its_own_rank() -> None:
    """The server's stream serves several sections, each with a rank of its own."""
    source = ScriptedSource("server", 10)
    async with running(Agent((source,), MemorySink())) as agent:
        source.queue.put_nowait(SectionChange("team", (stopped("t", host="x.localhost"),), rank=100))
        source.queue.put_nowait(SectionChange("workspaces", (stopped("w", host="x.localhost"),), rank=10))
        await until(lambda: set(agent.table.routes()) == {RouteKey("workspaces", "w")})


async def test_a_source_that_fails_or_ends_is_watched_again_and_harms_no_other() -> None:
    """Its last good section stays, the failure is a problem until it publishes again."""
    bad, good, sink = ScriptedSource("bad"), ScriptedSource("good"), MemorySink()
    async with running(Agent((bad, good), sink)) as agent:
        bad.queue.put_nowait(SectionChange("bad", (stopped("a"),), complete=True))
        await until(lambda: names(sink) == {"a"})
        bad.queue.put_nowait(RuntimeError("a bug"))
        await until(agent.problems)
        assert "bad: RuntimeError: a bug" in agent.problems()
        good.queue.put_nowait(SectionChange("good", (stopped("b"),), complete=True))
        await until(lambda: names(sink) == {"a", "b"})
        bad.queue.put_nowait(None)
        bad.queue.put_nowait(SectionChange("bad", (stopped("c"),), complete=True))
        await until(lambda: names(sink) == {"b", "c"} and not agent.problems())


async def test_a_section_that_the_table_refuses_is_the_sources_problem() -> None:
    """Two routes of one name change nothing and stop nothing."""
    source, sink = ScriptedSource("bad"), MemorySink()
    async with running(Agent((source,), sink)) as agent:
        source.queue.put_nowait(SectionChange("bad", (stopped("a"), stopped("a", path="/x")), complete=True))
        await until(agent.problems)
        source.queue.put_nowait(SectionChange("bad", (stopped("b"),), complete=True))
        await until(lambda: names(sink) == {"b"})


async def test_applied_names_the_streams_revision_only_when_it_is_live() -> None:
    """The report tells the server which of its own revisions requests meet."""
    source, sink = ScriptedSource("server"), MemorySink(capacity=1000)
    async with running(Agent((source,), sink)) as agent:
        assert agent.applied() is None
        source.queue.put_nowait(SectionChange("w", (stopped("a"),), revision=Revision("e", 41)))
        await until(lambda: agent.applied() == Revision("e", 41))
        source.queue.put_nowait(SectionChange("w", (), revision=Revision("e", 42)))
        await until(lambda: agent.applied() == Revision("e", 42))
        big = stopped("big", path="/" + "x" * 2000)
        source.queue.put_nowait(SectionChange("w", (big,), revision=Revision("e", 43)))
        await until(agent.problems)
        assert "do not fit" in agent.problems()[0]
        assert agent.applied() == Revision("e", 42)
        sink.forget()
        await until(lambda: names(sink) == {"a"})
        source.queue.put_nowait(SectionChange("w", deletes=("big",), revision=Revision("e", 44)))
        await until(lambda: agent.applied() == Revision("e", 44))


async def test_a_sink_that_outlived_an_agent_keeps_its_table_until_the_sources_are_current() -> None:
    """A replaced agent interrupts nobody: its own kept table is older, and without grants. New ones hold at once."""
    source, sink = ScriptedSource("workspaces"), MemorySink()
    live = Delta(((RouteKey("workspaces", "a"), serving("a")),), complete=True)
    await sink.apply(Revision("earlier", 5), live)
    await sink.grant(GRANTS)
    source.age = float("inf")
    restored = (SectionChange("workspaces", (serving("old"),), complete=True),)
    async with running(Agent((source,), sink, restored=restored, adopt_s=3600)):
        await asyncio.sleep(0.3)
        assert await sink.applied() == Revision("earlier", 5)
        assert sink._grants == GRANTS
        source.queue.put_nowait(SectionChange("workspaces", grants=FEWER))
        await until(lambda: sink._grants == FEWER)
        assert await sink.applied() == Revision("earlier", 5)
        source.queue.put_nowait(SectionChange("workspaces", (serving("b"),), complete=True))
        source.age = 0.0
        await until(lambda: names(sink) == {"b"})
    async with running(Agent((source,), sink, restored=restored, adopt_s=0.2)):
        source.age = float("inf")
        await until(lambda: names(sink) == {"old"})


async def test_the_last_good_table_serves_at_the_next_start(tmp_path: Path) -> None:
    """Without any source: with ranks, without grants, in a file that only its owner may read."""
    path, source = tmp_path / "table.ndjson", ScriptedSource("workspaces")
    async with running(Agent((source,), MemorySink(), snapshot=Snapshot(path, debounce_s=0.01))):
        source.queue.put_nowait(SectionChange("workspaces", (serving("a"), serving("b")), rank=7, grants=GRANTS))
        await until(lambda: path.exists() and path.read_bytes().count(b"\n") == 3)
        source.queue.put_nowait(SectionChange("workspaces", deletes=("b",), rank=7))
        await until(lambda: path.read_bytes().count(b"\n") == 2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["table.ndjson"]
    restored = Snapshot(path).load()
    assert restored == (SectionChange("workspaces", (serving("a"),), complete=True, rank=7),)
    sink = MemorySink()
    async with running(Agent((), sink, restored=restored)) as agent:
        await until(lambda: names(sink) == {"a"})
        assert agent.table.grants is None


@pytest.mark.parametrize(
    ("backends", "left", "state"),
    [
        ((Backend(address="10.0.0.1:80", identity=OWN),), (), RouteState.starting),
        ((Backend(address="10.0.0.1:80"),), ("10.0.0.1:80",), RouteState.serving),
        ((Backend(unix=f"/run/w/{OWN}/editor.sock", identity=OWN),), (None,), RouteState.serving),
        (
            (Backend(address="10.0.0.1:80", identity=OWN), Backend(address="10.0.0.2:80")),
            ("10.0.0.2:80",),
            RouteState.serving,
        ),
        ((Backend(listener_of=OWN, identity=OWN),), (), RouteState.starting),
    ],
)
def test_an_address_that_may_belong_to_another_by_now_is_withheld(
    backends: tuple[Backend, ...], left: tuple[str | None, ...], state: RouteState
) -> None:
    """A backend with an identity and no unix socket waits for its source; with none left the route is starting."""
    port = {"path": "/p/{port}"} if backends[0].listener_of else {}
    route = withhold(serving("a", backends=backends, **port))
    assert tuple(backend.address for backend in route.backends) == left
    assert route.state is state


def test_a_redirect_and_a_stopped_route_keep_their_state_when_backends_are_withheld() -> None:
    """Only what needs a backend waits for one."""
    backend = Backend(address="10.0.0.1:80", identity=OWN)
    redirect = Filters(redirect=Redirect(path="/elsewhere"))
    assert withhold(serving("a", backends=(backend,), filters=redirect)).state is RouteState.serving
    assert withhold(stopped("a", backends=(backend,))).state is RouteState.stopped


async def test_a_restored_address_is_used_once_its_source_has_confirmed_it(tmp_path: Path) -> None:
    """After a restart the route is starting; when the server says it again, it serves; what it says no more is gone."""
    path = tmp_path / "table.ndjson"
    own = serving("a", backends=(Backend(address="127.0.0.1:4000", identity=OWN),))
    written = SectionChange("workspaces", (own, serving("gone")), complete=True, rank=10)
    old = SectionChange("team", (serving("t"),), complete=True, rank=100)
    await keep(path, written, old)
    sink = MemorySink()
    restored = Snapshot(path).load()
    async with section_server(tmp_path) as server:
        await server.stop()
        agent = Agent((_stream(server, restored),), sink, snapshot=Snapshot(path), restored=restored)
        async with running(agent):
            await until(lambda: names(sink) == {"a", "gone", "t"})
            assert sink.routes()[RouteKey("workspaces", "a")].state is RouteState.starting
            assert sink.routes()[RouteKey("workspaces", "gone")].state is RouteState.serving
            server.snapshot = (SectionChange("workspaces", (own,), complete=True, rank=10), Synced())
            await server.start()
            await until(lambda: names(sink) == {"a"})
            assert sink.routes() == {RouteKey("workspaces", "a"): own}


def _stream(server: SectionServer, restored: Sequence[SectionChange]) -> StreamSource:
    return StreamSource(server.link(), known=[change.source for change in restored])


async def keep(path: Path, *changes: SectionChange) -> None:
    """Have a snapshot of these sections written."""
    table = RouteTable()
    for change in changes:
        table.apply(change, change.rank or 0)
    async with Tasks("keep") as tasks:
        tasks.forever("keep", Snapshot(path, debounce_s=0.01).keep(table))
        await until(lambda: [c.source for c in Snapshot(path).load()] == [c.source for c in changes])


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "field", "folder"])
async def test_a_damaged_file_is_survived(tmp_path: Path, damage: str) -> None:
    """Nothing of it is served, the agent starts, and the file is written anew."""
    path = tmp_path / "table.ndjson"
    await keep(path, SectionChange("s", tuple(serving(f"r{n}") for n in range(20)), complete=True))
    raw = path.read_bytes()
    damaged = {
        "cut": raw[: len(raw) // 2],
        "garbage": b"\x00\xff" * 100,
        "empty": b"",
        "field": raw.replace(b"r3.localhost", b"R3.localhost"),
    }
    path.unlink()
    path.mkdir() if damage == "folder" else path.write_bytes(damaged[damage])
    assert Snapshot(path).load() == ()
    if damage != "folder":
        await keep(path, SectionChange("s", (serving("new"),)))


async def test_no_file_is_no_table(tmp_path: Path) -> None:
    """The first start has nothing to restore."""
    assert Snapshot(tmp_path / "none").load() == ()


async def test_a_disk_that_cannot_be_written_is_said_and_tried_again(tmp_path: Path) -> None:
    """Serving goes on, the old file stays whole, and the table is kept once there is room again."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    path, source, sink = folder / "table.ndjson", ScriptedSource("s"), MemorySink()
    snapshot = Snapshot(path, debounce_s=0.01, retry_s=0.05)
    async with full_disk(folder), running(Agent((source,), sink, snapshot=snapshot)) as agent:
        source.queue.put_nowait(SectionChange("s", (serving("a"),)))
        await until(lambda: len(Snapshot(path).load()) == 1)
        many = tuple(serving(f"r{n}") for n in range(2000))
        source.queue.put_nowait(SectionChange("s", many))
        await until(agent.problems)
        assert "No space left" in agent.problems()[0]
        assert names(sink) >= {"a", "r1999"}
        assert len(Snapshot(path).load()[0].upserts) == 1
        source.queue.put_nowait(SectionChange("s", deletes=tuple(route.name for route in many)))
        source.queue.put_nowait(SectionChange("s", (serving("b"),)))
        await until(lambda: not agent.problems() and len(Snapshot(path).load()[0].upserts) == 2)
        assert {item.name for item in folder.iterdir()} == {"table.ndjson"}


@asynccontextmanager
async def full_disk(folder: Path) -> AsyncGenerator[None, None]:
    """A file system of 64 KiB at `folder`."""
    await _run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder))
    try:
        yield
    finally:
        await _run("umount", str(folder))


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
