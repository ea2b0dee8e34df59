"""How servers on one database hear of each other's changes: a number a topic, which each such change counts up.

A look is one small query, twice a second: what one server revokes must not work at another for a second longer. On
SQLite there is one server, and nobody to listen for.
"""

import asyncio
from collections.abc import AsyncIterator

import structlog
from sqlalchemy import BigInteger, Column, String, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from mooring.errors import Unavailable
from mooring.store.database import Database
from mooring.store.metadata import metadata

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5

# A row a topic, made by a migration.
changes = Table(
    "changes",
    metadata,
    Column("topic", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
)


async def note(connection: AsyncConnection, topic: str) -> None:
    """Tell every server that something of `topic` changed, when this transaction commits.

    Whoever notes the same topic waits for that: at the end of a transaction it costs others nothing, at its
    beginning it puts them in order.
    """
    await connection.execute(update(changes).where(changes.c.topic == topic).values(number=changes.c.number + 1))


class Changes:
    """What was noted, by this server or another."""

    def __init__(self, database: Database, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._database = database
        self._look_every_s = look_every_s

    async def watch(self) -> AsyncIterator[str]:
        """Each topic once, then again after changes, for ever; several changes may be told as one."""
        seen: dict[str, int] = {}
        while True:
            try:
                numbers = await self._numbers()
            except Unavailable as error:
                log.warning("changes of other servers are not seen", reason=error.detail)
                numbers = seen
            changed = [topic for topic, number in numbers.items() if seen.get(topic) != number]
            seen = numbers
            for topic in changed:
                yield topic
            await asyncio.sleep(self._look_every_s)

    async def _numbers(self) -> dict[str, int]:
        async with self._database.read() as connection:
            return {row.topic: row.number for row in await connection.execute(select(changes))}
