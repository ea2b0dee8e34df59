"""The report of a gateway, sent to a server of bytes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.gateway.memory import MemorySink
from mooring.gateway.ports import TelemetrySnapshot
from mooring.gateway.report import TABLE_PATH, Reporter
from mooring.gateway.service import Agent
from mooring.gateway.stream import StreamSource
from mooring.routes.ports import Revision, SectionChange
from mooring.routes.wire import Synced
from support.following import until
from support.routes import stopped
from support.section_server import TOKEN, SectionServer, section_server


class FixedTelemetry:
    """Counters that a test sets; None is an nginx that is away, and `silent` one that never answers."""

    def __init__(self) -> None:
        self.snapshot: TelemetrySnapshot | None = TelemetrySnapshot(
            {"abcdefghij": 1732170000.0}, {"abcdefghij": 2}, (11, 12), 3, "up 1\n"
        )
        self.silent = False

    async def read(self) -> TelemetrySnapshot:
        if self.silent:
            await asyncio.Event().wait()
        if self.snapshot is None:
            raise Unavailable("nginx does not answer at run/gateway.sock: no socket")
        return self.snapshot


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SectionServer]:
    """A server with one section."""
    async with section_server(tmp_path) as started:
        started.snapshot = (
            SectionChange("workspaces", (stopped("a"),), complete=True, revision=Revision("e", 41)),
            Synced(),
        )
        yield started


async def test_a_report_has_the_documented_shape(server: SectionServer) -> None:
    """What `docs/architecture.md` shows, with the stream's revision once it is live, sent again and again."""
    agent = Agent((StreamSource(server.link()),), MemorySink())
    async with Tasks("agent") as tasks:
        agent.start(tasks)
        tasks.forever("report", Reporter(server.link(), agent, FixedTelemetry(), gateway_id="here").run())
        await until(lambda: agent.applied() is not None)
        seen = len(server.reports)
        await until(lambda: len(server.reports) >= seen + 3)
    request = server.reports[-1]
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    report = orjson.loads(request.body)
    assert 0 <= report.pop("sources")["server"] < 20
    assert report == {
        "gateway": "here",
        "applied": ["e", 41],
        "activity": {"abcdefghij": 1732170000.0},
        "connections": {"abcdefghij": 2},
        "nginx": {"workers": [11, 12], "restarts": 3},
        "sections": {"workspaces": {"rank": 10, "routes": 1, "lost": 0}},
        "metrics": "up 1\n",
        "problems": [],
        "table": None,
    }


async def test_an_nginx_that_is_away_is_in_the_report(server: SectionServer) -> None:
    """Reports go on without its counters, and say so; a silent one holds them up for a second at most."""
    telemetry = FixedTelemetry()
    agent = Agent((), MemorySink())
    reporter = Reporter(server.link(), agent, telemetry, gateway_id="here")
    telemetry.snapshot = None
    report = await reporter.document()
    assert (report["nginx"]["workers"], report["applied"]) == ([], None)
    assert report["problems"] == ["nginx does not answer at run/gateway.sock: no socket"]
    telemetry.silent = True
    assert (await reporter.document())["problems"] == ["nginx does not answer within 1 s"]
    telemetry.silent, telemetry.snapshot = False, TelemetrySnapshot()
    said = ["nginx does not start: disk full", "nginx does not start: disk full"]
    more = Reporter(server.link(), agent, telemetry, gateway_id="here", problems=lambda: said)
    assert (await more.document())["problems"] == said[:1]


async def test_a_source_that_was_never_current_has_no_age(server: SectionServer) -> None:
    """Infinity is no JSON."""
    agent = Agent((StreamSource(server.link()),), MemorySink())
    report = await Reporter(server.link(), agent, FixedTelemetry(), gateway_id="here").document()
    assert report["sources"] == {"server": None}


async def test_a_server_that_is_away_misses_reports_and_gets_them_again(server: SectionServer) -> None:
    """Whether it breaks, refuses or restarts, the next report comes by itself."""
    reporter = Reporter(server.link(), Agent((), MemorySink()), FixedTelemetry(), gateway_id="here")
    async with Tasks("reports") as tasks:
        tasks.forever("report", reporter.run())
        await until(lambda: server.reports)
        await server.stop()
        await server.start()
        server.reports.clear()
        await until(lambda: server.reports)
        server.token_file.write_text("wrong")
        server.status = 503
        await until(lambda: server.requests[-1].headers["authorization"] == "Bearer wrong")
        server.status = 200
        server.token_file.write_text(TOKEN)
        server.reports.clear()
        await until(lambda: server.reports)


async def test_what_only_a_gateway_knows_is_counted(server: SectionServer) -> None:
    """Its own sources' routes, and those that lost to another, are numbers for the server's list of sections."""
    agent = Agent((StreamSource(server.link()),), MemorySink())
    agent.table.apply(SectionChange("file", (stopped("a"), stopped("b")), complete=True), 20)
    agent.table.apply(SectionChange("redis", (stopped("a"),), complete=True), 30)
    report = await Reporter(server.link(), agent, FixedTelemetry(), gateway_id="here").document()
    assert report["sections"] == {
        "file": {"rank": 20, "routes": 2, "lost": 0},
        "redis": {"rank": 30, "routes": 1, "lost": 1},
    }


class OwnSource:
    """A source of the gateway's own, that says what it is given."""

    def __init__(self, name: str, rank: int) -> None:
        self.name = name
        self.rank = rank
        self.said: asyncio.Queue[SectionChange] = asyncio.Queue()

    def stale_s(self) -> float:
        return 0.0

    def problems(self) -> tuple[str, ...]:
        return ()

    async def watch(self) -> AsyncGenerator[SectionChange, None]:
        while True:
            yield await self.said.get()


async def test_the_routes_of_its_own_are_sent_to_a_server_that_does_not_know_them(server: SectionServer) -> None:
    """With who won a conflict that they are part of; never those that the server sent, and not while it knows them."""
    file = OwnSource("file", 20)
    agent = Agent((StreamSource(server.link()), file), MemorySink())
    reporter = Reporter(server.link(), agent, FixedTelemetry(), gateway_id="here")

    def tables() -> list[dict[str, Any]]:
        return [orjson.loads(r.body) for r in server.requests if (r.method, r.path) == ("PUT", TABLE_PATH)]

    async with Tasks("agent") as tasks:
        agent.start(tasks)
        tasks.forever("report", reporter.run())
        await until(lambda: agent.applied() is not None and server.reports)
        assert orjson.loads(server.reports[-1].body)["table"] is None
        file.said.put_nowait(SectionChange("file", (stopped("a"), stopped("b")), complete=True))
        await until(lambda: orjson.loads(server.reports[-1].body)["table"])
        assert not tables()
        server.wants_table = True
        await until(tables)
        first = tables()[-1]
        assert {r["name"] for r in first["sections"].pop("file")["routes"]} == {"a", "b"}
        assert first["sections"] == {}
        (lost,) = first["conflicts"]
        assert {lost["loser"]["source"], lost["winner"]["source"]} == {"file", "workspaces"}
        assert first["version"] == orjson.loads(server.reports[-1].body)["table"]
        file.said.put_nowait(SectionChange("file", deletes=("a",)))
        await until(lambda: tables()[-1]["version"] != first["version"])
        assert tables()[-1]["conflicts"] == []
        file.said.put_nowait(SectionChange("file", deletes=("b",)))
        await until(lambda: orjson.loads(server.reports[-1].body)["table"] is None)
