"""Brings the database to the schema of this version, at start and with nobody typing anything.

Two servers that start at once wait for each other. A database that a newer Mooring has written is left alone.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from mooring.errors import Misconfigured, Unavailable
from mooring.store.database import Database

VERSIONS = Path(__file__).parent / "migrations/versions"
# Any number, as long as every version of Mooring takes the same.
_LOCK = 7_246_120_931
# Waiting mends a lock and a full disk, and neither of these.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def known() -> tuple[str, ...]:
    """The schema revisions of this version, oldest first: the numbers that the migration files begin with."""
    return tuple(sorted(path.stem.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py")))


async def migrate(database: Database) -> None:
    """Bring the schema up to date. Does nothing, and costs nothing, when it is.

    Raises:
        Misconfigured: a newer Mooring has written this database, or its file is damaged.
        Unavailable: the database is away; nothing was changed.
    """
    with _damage_named():
        await _bring_up_to_date(database)


async def check(database: Database) -> None:
    """Look whether `migrate` could do its work now; changes nothing. Raises what that would."""
    with _damage_named():
        # A lock that another holds for long, and a file or disk that takes nothing, show in a transaction that writes.
        async with database.write() as connection:
            _is_newest(await connection.run_sync(_current))


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        cause = getattr(error.__cause__, "orig", None)
        if getattr(cause, "sqlite_errorcode", None) in _DAMAGED:
            raise Misconfigured(
                f"the database is damaged ({cause}): restore a backup of mooring.db, or move it away to begin without "
                "accounts and workspaces (files stay below workspaces/)",
                field="database",
            ) from error
        raise


async def _bring_up_to_date(database: Database) -> None:
    async with database.read() as connection:
        current = await connection.run_sync(_current)
    if _is_newest(current):
        return
    async with database.write() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    # Read again below the lock: another server may have done it while we waited.
    if not _is_newest(_current(connection)):
        # Alembic costs 10 MB and a tenth of a second, which only the first start has to pay.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(VERSIONS.parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _is_newest(current: str | None) -> bool:
    """Whether `current` is the newest known revision. Raises `Misconfigured` when it is not known at all."""
    revisions = known()
    if current is not None and current not in revisions:
        raise Misconfigured(
            f"the database has schema {current}, this Mooring knows up to {revisions[-1]}: install the newer version "
            "that wrote it, or restore a backup",
            field="database",
        )
    return current == revisions[-1]
