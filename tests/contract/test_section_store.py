"""What every store of published sections promises: in memory, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from mooring.errors import NotFound
from mooring.model.routes import Access, Backend, Filters, Route
from mooring.routes.published import MemorySections, PublishedSection, SectionStore
from mooring.routes.sql import SqlSections
from support import databases
from support.postgres import Postgres

ROUTE = Route(
    name="a/b",
    host="*.example.org",
    path="/x/",
    backends=(Backend(address="127.0.0.1:80", weight=3),),
    filters=Filters(strip_prefix=True),
    access=Access(kind="subjects", subjects=("ada",)),
)


@pytest.fixture(params=("memory", *databases.KINDS))
async def store(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> AsyncIterator[SectionStore]:
    """An empty store."""
    if request.param == "memory":
        yield MemorySections()
        return
    with databases.url_of(request.param, tmp_path, postgres) as url:
        async with databases.opened(url) as database:
            yield SqlSections(database)


async def test_sections_come_back_as_they_were(store: SectionStore) -> None:
    """Every route survives whole; the sections are in the order of their sources."""
    two = PublishedSection("two", 500, ())
    one = PublishedSection("one", 101, (ROUTE, ROUTE.model_copy(update={"name": "c"})))
    await store.keep_section(two)
    await store.keep_section(one)
    assert await store.sections() == (one, two)


async def test_keeping_replaces_the_whole(store: SectionStore) -> None:
    """Of a source the last section counts."""
    await store.keep_section(PublishedSection("one", 101, (ROUTE,)))
    await store.keep_section(PublishedSection("one", 102, ()))
    assert await store.sections() == (PublishedSection("one", 102, ()),)


async def test_dropping_forgets_it(store: SectionStore) -> None:
    """A dropped section is gone; one that is not there is NotFound."""
    await store.keep_section(PublishedSection("one", 101, ()))
    await store.drop_section("one")
    assert await store.sections() == ()
    with pytest.raises(NotFound):
        await store.drop_section("one")


async def test_a_route_that_is_not_allowed_any_more_hides_no_other_section(tmp_path: Path) -> None:
    """A section that an older version kept, and that the rules refuse by now, is left out; the others are served."""
    async with databases.opened(f"sqlite:///{tmp_path}/m.db") as database:
        store = SqlSections(database)
        await store.keep_section(PublishedSection("bad", 101, (ROUTE,)))
        await store.keep_section(PublishedSection("good", 102, (ROUTE,)))
        async with database.write() as connection:
            await connection.execute(text("UPDATE published_sections SET routes = '[{}]' WHERE source = 'bad'"))
        assert [section.source for section in await store.sections()] == ["good"]
