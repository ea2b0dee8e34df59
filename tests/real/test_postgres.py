"""A real PostgreSQL that is killed and comes back, and several servers on one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest

from mooring.accounts.memory import MemoryKeys
from mooring.accounts.ports import Role
from mooring.accounts.service import Accounts
from mooring.accounts.sql import SqlAccounts
from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Misconfigured, Unavailable
from mooring.model.grants import Grants
from mooring.model.names import Hosts
from mooring.model.routes import Backend, Route
from mooring.model.workspace import Phase
from mooring.routes.published import PublishedSection, Publisher
from mooring.routes.sql import SqlSections
from mooring.routes.table import RouteTable
from mooring.server.replicas import hear
from mooring.store.changes import Changes
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


class NobodysWorkspaces:
    """What accounts ask of workspaces, where there are none."""

    async def count(self, owner: str) -> int:  # noqa: ARG002 - the port's
        return 0


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[tuple[Accounts, Publisher, RouteTable]]:
    """The parts of a server that hear of others."""
    async with databases.opened(url) as database, Tasks("replica") as tasks:
        table = RouteTable()
        accounts = Accounts(SqlAccounts(database), MemoryKeys(), SystemClock(), NobodysWorkspaces())
        publisher = Publisher(table, SqlSections(database), Hosts("localhost"), ("workspaces",))
        tasks.forever("hear", hear(Changes(database), accounts, publisher))
        yield accounts, publisher, table


def sessions(grants: Grants) -> set[str]:
    """What its tokens are called."""
    return {token.session for token in grants.tokens}


async def test_a_revocation_is_heard_by_every_server(own: Postgres) -> None:
    """What one server revokes ends at another at once: its streams, and what it tells its gateways."""
    with own.database() as url:
        async with replica(url) as (here, _, _), replica(url) as (there, _, _):
            await here.create_user("ada", Role.admin)
            token, secret = await here.create_token("ada", label="")
            caller = await there.authenticate_token(secret)
            async with asyncio.timeout(10), aclosing(there.follow_grants()) as grants, Tasks("open") as tasks:
                stream = tasks.spawn("stream", there.until_invalid(caller))
                while token.id not in sessions(await anext(grants)):
                    pass
                await here.revoke_token("ada", token.id)
                await stream
                while token.id in sessions(await anext(grants)):
                    pass


async def test_a_section_is_served_by_every_server(own: Postgres) -> None:
    """A section published at one server is served by the others, and goes there too; two that publish at once agree."""
    route = Route(name="a", host="a.example.org", backends=(Backend(address="127.0.0.1:1"),))
    with own.database() as url:
        async with replica(url) as (_, here, table), replica(url) as (_, there, other), asyncio.timeout(20):
            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    section = PublishedSection("team", 500, (route.model_copy(update={"order": number}),))
                    group.create_task((here, there)[number % 2].publish(section))
            while dict(table.routes()) != dict(other.routes()):
                await asyncio.sleep(0.05)
            assert len(table.routes()) == 1
            await there.withdraw("team")
            while table.routes() or other.routes():
                await asyncio.sleep(0.05)


async def test_servers_hear_each_other_again_after_the_database_was_away(own: Postgres) -> None:
    """A look that fails is repeated, and what changed meanwhile is told."""
    with own.database() as url:
        async with databases.opened(url) as database:
            accounts = SqlAccounts(database)
            async with asyncio.timeout(30), aclosing(Changes(database, look_every_s=0.05).watch()) as topics:
                assert {await anext(topics), await anext(topics)} == {"accounts", "sections"}
                own.stop()
                own.start()
                await accounts.revoke_sessions("nobody", now=1.0)
                assert await anext(topics) == "accounts"
