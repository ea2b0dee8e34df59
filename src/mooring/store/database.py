"""The database: SQLite or PostgreSQL, by URL. Features write their SQL; this gives them transactions.

No network call may be made inside a transaction, and foreign errors leave here as `Unavailable`.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mooring.errors import Misconfigured, Unavailable

BUSY_S = 5.0
"""Seconds that a SQLite statement waits for another's transaction, and PostgreSQL for a connection."""
STATEMENT_S = 10.0
_CONNECTIONS = 8
_SQLITE_CONNECTIONS = 4
"""Each is a thread; one writes at a time, the others read."""
_WRITES = "mooring_writes"


class Database:
    """Transactions on one engine. `close` it at the end."""

    def __init__(self, url: URL) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        # SQLite's own wait is a poll that starves; here the writers of this process queue up in order.
        self._writing = asyncio.Lock() if self.is_sqlite else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises `Unavailable`."""
        with translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back on any error.

        Raises:
            Unavailable: the database is gone, locked or full; nothing was written.
            IntegrityError: of SQLAlchemy; the caller knows which rule of its tables was broken.
        """
        if self._writing is None:
            async with self._begun() as connection:
                yield connection
            return
        async with self._writing, self._begun() as connection:
            yield connection

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[AsyncConnection]:
        with translated():
            async with self._writer.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def database_url(given: str | None, file: Path) -> URL:
    """The URL of the database: PostgreSQL when one is given, else SQLite in `file`.

    Raises:
        Misconfigured: naming what is allowed; a password in the URL is never repeated.
    """
    if given is None:
        return URL.create("sqlite+aiosqlite", database=str(file))
    try:
        url = make_url(given)
    except ArgumentError as error:
        raise Misconfigured("the database must be a URL: postgresql://user@host/name", field="database") from error
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite+aiosqlite")
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise Misconfigured("the database must be postgresql://user@host/name, or SQLite by default", field="database")
    return url.set(drivername="postgresql+asyncpg")


@contextmanager
def translated() -> Iterator[None]:
    """The one place where errors of the database become ours; `IntegrityError` passes, its meaning is the caller's."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise Unavailable(f"the database does not answer: {error.orig}") from error
    except (SQLAlchemyError, OSError, TimeoutError, sqlite3.Error) as error:
        # A wait that ran out has no text of its own.
        raise Unavailable(f"the database does not answer: {str(error) or 'not in time'}") from error


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=_SQLITE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=BUSY_S,
        connect_args={"timeout": BUSY_S, "isolation_level": None},
    )
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's adapted connection
    cursor = connection.cursor()
    try:
        for pragma in (
            f"busy_timeout = {int(BUSY_S * 1000)}",
            "journal_mode = WAL",
            "foreign_keys = ON",
            # FULL: what the API has confirmed survives a power cut. NORMAL would lose the last commits, and with them
            # the row of a workspace whose files exist; we write a few rows a minute, so a flush each costs nothing.
            "synchronous = FULL",
        ):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()


def _begin(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event gives its Connection
    # A transaction that reads first and writes then cannot wait for another's write (SQLITE_BUSY at once).
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")


def _postgresql(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=BUSY_S,
        # A server that was restarted leaves dead connections in the pool.
        pool_pre_ping=True,
        connect_args={"timeout": BUSY_S, "command_timeout": STATEMENT_S},
    )
