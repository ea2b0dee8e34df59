"""The database on SQLite: its schema, its faults and what they become."""

import asyncio
import sqlite3
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

import mooring.accounts.tables
import mooring.routes.tables
import mooring.store.changes
import mooring.workspaces.tables
from mooring.control.clock import SystemClock
from mooring.control.patience import until_available
from mooring.control.tasks import Tasks
from mooring.errors import Misconfigured, Unavailable
from mooring.model.workspace import Phase
from mooring.store import database as database_module
from mooring.store.database import Database, database_url
from mooring.store.metadata import metadata
from mooring.store.migrate import known, migrate
from mooring.workspaces.memory_runtime import MemoryRuntime
from mooring.workspaces.ports import KEPT_EVENTS, Event
from mooring.workspaces.sql import SqlEventLog, SqlStore
from support import databases
from support.workspaces import stage

TABLES = (mooring.accounts.tables, mooring.routes.tables, mooring.store.changes, mooring.workspaces.tables)


async def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    """After all migrations the schema is exactly that of the features' tables."""
    assert TABLES
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database, database.read() as connection:
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)
        )
    assert difference == []


async def test_many_servers_migrate_at_once(tmp_path: Path) -> None:
    """Of several that start together one migrates, the others wait for it."""
    url = database_url(None, tmp_path / "m.db")
    several = [Database(url) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for database in several:
            group.create_task(until_available("the schema", partial(migrate, database)))
    async with several[0].read() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() == known()[-1]
    for database in several:
        await database.close()


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """A database that a newer version wrote is not touched, and the message says what to do."""
    url = f"sqlite:///{tmp_path}/m.db"
    async with databases.opened(url) as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match=r"9999.*install the newer version"):
        async with databases.opened(url):
            pass


async def test_the_connections_are_set_up(tmp_path: Path) -> None:
    """A committed row survives a power cut, readers do not wait for the writer, and foreign keys hold."""
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database, database.read() as connection:
        pragmas = {}
        for name in ("journal_mode", "synchronous", "foreign_keys"):
            pragmas[name] = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


async def test_what_the_database_says_becomes_unavailable(tmp_path: Path) -> None:
    """A folder that is not there is Unavailable, with the database's own words: it may come back."""
    with pytest.raises(Unavailable, match="the database does not answer: unable to open"):
        async with databases.opened(f"sqlite:///{tmp_path}/none/m.db"):
            pass
    await _threads_ended()


async def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    """No waiting mends a file that is no database, or half of one: whoever starts Mooring is told what to do."""
    async with databases.opened(f"sqlite:///{tmp_path}/m.db"):
        pass
    whole = (tmp_path / "m.db").read_bytes()
    for number, contents in enumerate((b"noise" * 1000, whole[: len(whole) // 2], bytes(8192))):
        (tmp_path / f"bad{number}.db").write_bytes(contents)
        with pytest.raises(Misconfigured, match=r"damaged \(.*\): restore a backup"):
            async with databases.opened(f"sqlite:///{tmp_path}/bad{number}.db"):
                pass
    await _threads_ended()


async def _threads_ended() -> None:
    """A connection that could not be made leaves aiosqlite's thread on its way out, which still speaks to the loop."""
    async with asyncio.timeout(30):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "not a url: secret", "oracle://secret"])
def test_another_database_is_refused(url: str) -> None:
    """Only PostgreSQL and SQLite; a password in the URL is not repeated."""
    with pytest.raises(Misconfigured, match="postgresql://") as caught:
        database_url(url, Path("/x"))
    assert "secret" not in caught.value.detail


async def test_a_locked_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that locks the database holds changes up, loses none, and is over soon after it lets go."""
    monkeypatch.setattr(database_module, "BUSY_S", 0.1)
    runtime = MemoryRuntime()
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database:
        events = SqlEventLog(database, SystemClock())
        async with stage(runtime=runtime, store=SqlStore(database), events=events) as it:
            made = await it.create()
            await it.until(made.id, Phase.running)
            other = sqlite3.connect(tmp_path / "m.db", isolation_level=None, check_same_thread=False)
            # In a thread: on the loop it would wait for a write that can only end when the loop goes on.
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            runtime.fail(made.id, "boom")
            with pytest.raises(Unavailable, match="locked"):
                await events.append(made.id, "tick", "now")
            await asyncio.sleep(1)
            assert (await it.store.get(made.id)).phase is Phase.running
            other.execute("ROLLBACK")
            other.close()
            began = it.clock.monotonic()
            assert (await it.until(made.id, Phase.failed)).reason == "boom"
            assert it.clock.monotonic() - began < 5


class Counting(SqlEventLog):
    """Counts how often it is read."""

    looks = 0

    async def after(self, workspace_id: str | None, event_id: int, *, limit: int = KEPT_EVENTS) -> tuple[Event, ...]:
        self.looks += 1
        return await super().after(workspace_id, event_id, limit=limit)


async def test_an_event_is_looked_for_by_those_who_follow_it(tmp_path: Path) -> None:
    """A hundred people who each follow their own workspace read nothing when one more person's has news."""
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database, Tasks("followers") as tasks:
        log = Counting(database, SystemClock())
        heard = Counter[str]()

        async def follow(workspace_id: str | None) -> None:
            async for event in log.follow(workspace_id, 0):
                heard[event.text] += 1

        for number in range(100):
            tasks.spawn(f"follow-{number}", follow(f"workspace{number}"))
        tasks.spawn("follow-all", follow(None))
        async with asyncio.timeout(60):
            while log.looks < 101:
                await asyncio.sleep(0.01)
            await log.append("workspace7", "tick", "news")
            while heard.total() < 2:
                await asyncio.sleep(0.01)
            await log.append("workspace8", "tick", "more")
            while heard.total() < 4:
                await asyncio.sleep(0.01)
        assert heard == {"news": 2, "more": 2}
        assert log.looks <= 101 + 8


async def test_what_many_follow_is_read_once(tmp_path: Path) -> None:
    """An event that two hundred people follow costs as many looks at the database as one that one person follows."""
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database, Tasks("followers") as tasks:
        log = Counting(database, SystemClock())
        heard = Counter[str]()

        async def follow() -> None:
            async for event in log.follow("workspace1", 0):
                heard[event.text] += 1

        for number in range(200):
            tasks.spawn(f"follow-{number}", follow())
        async with asyncio.timeout(60):
            for text in ("first", "second", "third"):
                await log.append("workspace1", "tick", text)
                while heard[text] < 200:
                    await asyncio.sleep(0.01)
        assert heard == {"first": 200, "second": 200, "third": 200}
        # One for each event, one that finds no more, and by the clock one every two seconds.
        assert log.looks < 50


async def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """When nothing can be written the caller is told, what was there stays, and later writes work again."""
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database:
        log = SqlEventLog(database, SystemClock())
        first = await log.append("workspace1", "created", "first")
        async with database.write() as connection:
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await _limit(database, pages)
        with pytest.raises(Unavailable, match="full"):
            await _fill(log)
        kept = await log.after(None, 0)
        assert kept[0] == first
        await _limit(database, 1_000_000)
        assert (await log.append("workspace1", "tick", "again")).id > kept[-1].id


async def _limit(database: Database, pages: int | None) -> None:
    """Let the file have that many pages, on each of the pool's connections."""
    for _ in range(8):
        async with database.write() as connection:
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


async def _fill(log: SqlEventLog) -> None:
    for _ in range(100):
        await log.append("workspace1", "tick", "x" * 4000)
