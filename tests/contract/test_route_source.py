"""What every route source promises, run on each of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from support.following import following, until
from support.sources import SOURCES, SourceUnderTest


@pytest.fixture(params=SOURCES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SourceUnderTest]:
    """Each registered source, with its place."""
    async with SOURCES[request.param](tmp_path) as made:
        yield made


async def test_a_complete_section_comes_first_also_when_it_is_empty(place: SourceUnderTest) -> None:
    """A source without routes says so: whoever waits for it need not wait longer."""
    assert place.source.stale_s() == float("inf")
    async with following(place.source) as followed:
        await until(lambda: followed.changes and followed.source.stale_s() < 10)
        assert followed.changes[0].complete
        assert followed.routes == {}
        assert followed.source.problems() == ()


async def test_changes_follow(place: SourceUnderTest) -> None:
    """Routes that are added, replaced and taken away end as they are there."""
    async with following(place.source) as followed:
        for names in (("a", "b"), ("b", "c"), (), ("a",)):
            await place.put(names)
            await until(lambda names=names: set(followed.routes) == set(names))


async def test_a_place_that_is_away_keeps_its_last_good_section(place: SourceUnderTest) -> None:
    """It never publishes an empty section for it; the problem is said and the age rises."""
    async with following(place.source) as followed:
        await place.put(("a", "b"))
        await until(lambda: set(followed.routes) == {"a", "b"})
        count = len(followed.changes)
        await place.go_away()
        await until(followed.source.problems)
        before = followed.source.stale_s()
        await until(lambda: followed.source.stale_s() > before + 0.5)
        assert set(followed.routes) == {"a", "b"}
        assert len(followed.changes) == count


async def test_a_place_that_comes_back_counts_again(place: SourceUnderTest) -> None:
    """What changed while it was away is seen, and the problem is gone; as often as that happens."""
    async with following(place.source) as followed:
        for names in (("a", "b"), ("b", "c")):
            await place.put(names)
            await until(lambda names=names: set(followed.routes) == set(names))
            await place.go_away()
            await until(followed.source.problems)
            await place.come_back(("d",))
            await until(lambda: set(followed.routes) == {"d"})
            await until(lambda: not followed.source.problems() and followed.source.stale_s() < 10)


async def test_a_new_watch_begins_with_a_complete_section(place: SourceUnderTest) -> None:
    """Whoever could not use a change may watch again and misses nothing."""
    await place.put(("a",))
    for _ in range(2):
        async with following(place.source) as followed:
            await until(lambda: set(followed.routes) == {"a"})
            assert followed.changes[0].complete


async def test_a_watch_that_is_left_leaves_nothing(place: SourceUnderTest) -> None:
    """Closed in the middle of a change, or cancelled while it waits, it ends at once with all its tasks."""
    await place.put(("a",))
    async with aclosing(place.source.watch()) as changes, asyncio.timeout(20):
        await anext(changes)
    async with following(place.source) as followed:
        await until(lambda: followed.changes)
