"""Published sections in the database: one row a source, replaced as a whole."""

import structlog
from pydantic import ValidationError
from sqlalchemy import Delete, Row, delete, insert, select

from mooring.errors import NotFound
from mooring.model.routes import Route
from mooring.model.wording import said
from mooring.routes.published import PublishedSection
from mooring.routes.tables import published_sections
from mooring.store.changes import note
from mooring.store.database import Database

log = structlog.get_logger(__name__)

TOPIC = "sections"
"""What every server on the database must hear of."""


class SqlSections:
    """A `SectionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sections(self) -> tuple[PublishedSection, ...]:
        async with self._database.read() as connection:
            rows = (await connection.execute(select(published_sections).order_by(published_sections.c.source))).all()
        return tuple(section for row in rows if (section := _section(row)) is not None)

    async def keep_section(self, section: PublishedSection) -> None:
        routes = [route.model_dump(mode="json", exclude_defaults=True) for route in section.routes]
        async with self._database.write() as connection:
            # First: two servers that replace one section would both find it gone, and both insert it.
            await note(connection, TOPIC)
            await connection.execute(_drop(section.source))
            await connection.execute(
                insert(published_sections).values(source=section.source, rank=section.rank, routes=routes)
            )

    async def drop_section(self, source: str) -> None:
        async with self._database.write() as connection:
            await note(connection, TOPIC)
            if (await connection.execute(_drop(source))).rowcount == 0:
                raise NotFound(f"nobody publishes a section {source}")


def _section(row: Row[tuple[object, ...]]) -> PublishedSection | None:
    try:
        return PublishedSection(row.source, row.rank, tuple(Route.model_validate(route) for route in row.routes))
    except ValidationError as error:
        # Kept by a version that allowed more: one such section must not keep all others from being served.
        log.error("a published section is not valid any more", source=row.source, error=said(error.errors()[0]))  # noqa: TRY400 - no stack helps
        return None


def _drop(source: str) -> Delete:
    return delete(published_sections).where(published_sections.c.source == source)
