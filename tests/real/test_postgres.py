"""A real PostgreSQL that is killed and comes back, and several servers on one."""

import asyncio
from collections.abc import Iterator

import pytest

from mooring.control.clock import SystemClock
from mooring.errors import Misconfigured, Unavailable
from mooring.model.workspace import Phase
from mooring.store.database import Database, database_url
from mooring.store.migrate import migrate
from mooring.workspaces.memory_runtime import MemoryRuntime
from mooring.workspaces.sql import SqlEventLog, SqlStore
from support import databases
from support.postgres import Postgres, server
from support.workspaces import stage


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server of this test's own, that may be killed."""
    with server() as running:
        yield running


async def test_a_killed_database_loses_nothing(own: Postgres) -> None:
    """While PostgreSQL is gone calls say so; once it is back states are true again within seconds."""
    runtime = MemoryRuntime()
    with own.database() as url:
        async with databases.opened(url) as database:
            events = SqlEventLog(database, SystemClock())
            async with stage(runtime=runtime, store=SqlStore(database), events=events) as it:
                made = await it.create()
                await it.until(made.id, Phase.running)
                own.stop()
                runtime.fail(made.id, "boom")
                with pytest.raises(Unavailable, match="the database does not answer"):
                    await it.store.get(made.id)
                await asyncio.sleep(2)
                own.start()
                began = it.clock.monotonic()
                assert (await it.until(made.id, Phase.failed)).reason == "boom"
                assert it.clock.monotonic() - began < 5


async def test_replicas_migrate_at_once(own: Postgres) -> None:
    """Of several servers that start together one migrates, the others wait for it; a newer schema is left alone."""
    with own.database() as url:
        several = [Database(database_url(url, own.folder)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for database in several:
                group.create_task(migrate(database))
        async with several[0].write() as connection:
            await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(Misconfigured, match="9999"):
            await migrate(several[1])
        for database in several:
            await database.close()
