"""Both databases for contract suites: `@pytest.fixture(params=...)` by kind, migrated and empty."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from mooring.store.database import Database, database_url
from mooring.store.migrate import migrate
from support.postgres import Postgres

KINDS = ("sqlite", "postgresql")


@contextmanager
def url_of(kind: str, folder: Path, postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database of that kind."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/mooring.db"
    else:
        with postgres.database() as url:
            yield url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The database at `url`, migrated, closed afterwards."""
    database = Database(database_url(url, Path("/nonexistent")))
    try:
        await migrate(database)
        yield database
    finally:
        await database.close()
