"""Published sections in the database: one row a source, replaced as a whole."""

from sqlalchemy import Delete, delete, insert, select

from mooring.errors import NotFound
from mooring.model.routes import Route
from mooring.routes.published import PublishedSection
from mooring.routes.tables import published_sections
from mooring.store.database import Database


class SqlSections:
    """A `SectionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sections(self) -> tuple[PublishedSection, ...]:
        async with self._database.read() as connection:
            rows = await connection.execute(select(published_sections).order_by(published_sections.c.source))
            return tuple(
                PublishedSection(row.source, row.rank, tuple(Route.model_validate(route) for route in row.routes))
                for row in rows
            )

    async def keep_section(self, section: PublishedSection) -> None:
        routes = [route.model_dump(mode="json", exclude_defaults=True) for route in section.routes]
        async with self._database.write() as connection:
            await connection.execute(_drop(section.source))
            await connection.execute(
                insert(published_sections).values(source=section.source, rank=section.rank, routes=routes)
            )

    async def drop_section(self, source: str) -> None:
        async with self._database.write() as connection:
            if (await connection.execute(_drop(source))).rowcount == 0:
                raise NotFound(f"nobody publishes a section {source}")


def _drop(source: str) -> Delete:
    return delete(published_sections).where(published_sections.c.source == source)
