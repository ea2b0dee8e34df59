"""What every event log promises: in memory, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.workspaces.memory import MemoryEventLog
from mooring.workspaces.ports import KEPT_EVENTS, Event, EventLog
from mooring.workspaces.sql import SqlEventLog
from support import databases
from support.postgres import Postgres

ONE, TWO = "workspace1", "workspace2"


@pytest.fixture(params=("memory", *databases.KINDS))
async def logs(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres
) -> AsyncIterator[tuple[EventLog, EventLog]]:
    """Two logs over one database, as two servers have; in memory they are the same."""
    if request.param == "memory":
        log = MemoryEventLog(SystemClock())
        yield log, log
        return
    with databases.url_of(request.param, tmp_path, postgres) as url:
        async with databases.opened(url) as first, databases.opened(url) as second:
            one = SqlEventLog(first, SystemClock())
            yield one, SqlEventLog(second, SystemClock()) if request.param == "postgresql" else one


async def test_events_are_kept_in_order(logs: tuple[EventLog, EventLog]) -> None:
    """What was appended is read oldest first, from any id on, with its data."""
    log, other = logs
    first = await log.append(ONE, "created", "created", {"from": "go", "n": [1, 2.5, None]})
    second = await log.append(TWO, "created", "ändert ' nichts")
    third = await other.append(ONE, "running", "editor answered after 1.2 s")
    assert first.id < second.id < third.id
    assert await log.after(ONE, 0) == (first, third)
    assert await log.after(ONE, first.id) == (third,)
    assert await log.after(None, 0) == (first, second, third)
    assert await log.after(None, 0, limit=2) == (first, second)


async def test_an_event_has_the_time_that_it_is_given(logs: tuple[EventLog, EventLog]) -> None:
    """One that is written late says when it happened, and keeps its place in the order of writing."""
    log, _ = logs
    now = await log.append(ONE, "tick", "now")
    late = await log.append(ONE, "tick", "late", at=1234.5)
    assert late.at == 1234.5
    assert await log.after(ONE, 0) == (now, late)


async def test_only_the_newest_are_kept(logs: tuple[EventLog, EventLog]) -> None:
    """Of each workspace the newest five hundred stay; its neighbour's are not touched."""
    log, _ = logs
    kept = await log.append(TWO, "created", "created")
    for number in range(KEPT_EVENTS + 5):
        await log.append(ONE, "tick", str(number))
    own = await log.after(ONE, 0)
    assert [event.text for event in own] == [str(number) for number in range(5, KEPT_EVENTS + 5)]
    assert await log.after(TWO, 0) == (kept,)


async def test_a_follower_misses_nothing(logs: tuple[EventLog, EventLog]) -> None:
    """Events before and after the call arrive in order, however many writers there are."""
    log, other = logs
    await log.append(ONE, "tick", "before")
    got: list[Event] = []

    async def write(which: EventLog, name: str) -> None:
        for number in range(20):
            await which.append(ONE, "tick", f"{name}{number}")

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(write(log, "x"))
        group.create_task(write(other, "y"))
        async with aclosing(log.follow(ONE, 0)) as events:
            async for event in events:
                got.append(event)
                if len(got) == 41:
                    break
    assert [event.id for event in got] == sorted({event.id for event in got})
    assert got[0].text == "before"
    for name in ("x", "y"):
        assert [e.text for e in got if e.text.startswith(name)] == [f"{name}{number}" for number in range(20)]


async def test_a_follower_of_one_hears_of_one(logs: tuple[EventLog, EventLog]) -> None:
    """A follower of a workspace hears of no other, and one of all hears of all."""
    log, _ = logs
    for name in (TWO, ONE):
        await log.append(name, "tick", name)
    async with asyncio.timeout(60):
        async with aclosing(log.follow(ONE, 0)) as events:
            assert (await anext(events)).workspace == ONE
        async with aclosing(log.follow(None, 0)) as events:
            assert [(await anext(events)).workspace for _ in range(2)] == [TWO, ONE]


@pytest.mark.parametrize("followed", [ONE, None])
async def test_an_id_that_was_never_given_is_the_newest(logs: tuple[EventLog, EventLog], followed: str | None) -> None:
    """A client of before a backup was restored, whose last id is above all that there are, hears what comes next."""
    log, other = logs
    for name in (ONE, TWO, ONE):
        newest = await log.append(name, "tick", "before")
    async with asyncio.timeout(60), aclosing(log.follow(followed, newest.id + 1000)) as events, Tasks("test") as tasks:
        first = tasks.spawn("first", anext(events))
        while not first.done():
            # Where it begins is where the end was when it asked, which is before one of these.
            await other.append(ONE, "tick", "after")
            await asyncio.sleep(0.05)
    assert first.result().text == "after"


async def test_a_follower_behind_the_others_misses_nothing(logs: tuple[EventLog, EventLog]) -> None:
    """Whoever joins late, is slow, or resumes in the middle gets each event behind its own place, once."""
    log, other = logs
    ids = [(await log.append(ONE, "tick", "before")).id for _ in range(4)]

    async def heard(after: int, pause_s: float) -> list[int]:
        got: list[int] = []
        async with aclosing(log.follow(ONE, after)) as events:
            async for event in events:
                got.append(event.id)
                if event.kind == "end":
                    return got
                await asyncio.sleep(pause_s)
        raise AssertionError

    async with asyncio.timeout(60), Tasks("test") as tasks:
        places = [(after, pause_s) for after in (0, ids[1], ids[3]) for pause_s in (0.0, 0.02)]
        hearing = [tasks.spawn("hear", heard(*place)) for place in places for _ in range(5)]
        for number in range(10):
            ids.append((await (log, other)[number % 2].append(ONE, "tick", str(number))).id)
            # One that is cancelled while it reads for the others leaves that to the next.
            gone = tasks.spawn("gone", heard(0, 0.0))
            await asyncio.sleep(number / 1000)
            gone.cancel()
        ids.append((await other.append(ONE, "end", "end")).id)
        for (after, _), task in zip([place for place in places for _ in range(5)], hearing, strict=True):
            assert await task == [number for number in ids if number > after]


async def test_whoever_followed_in_vain_leaves_nothing(tmp_path: Path, postgres: Postgres) -> None:
    """Ids of workspaces that were followed and never told of take no memory once nobody waits for them."""
    with databases.url_of("sqlite", tmp_path, postgres) as url:
        async with databases.opened(url) as database:
            log = SqlEventLog(database, SystemClock())

            async def follow() -> None:
                async with aclosing(log.follow(ONE, 0)) as events:
                    await anext(events)

            async with asyncio.timeout(60), Tasks("test") as tasks:
                _ = tasks.spawn("follow", follow())
                while not log._followed:
                    await asyncio.sleep(0.01)
            assert not log._followed
