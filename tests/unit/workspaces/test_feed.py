"""Followers of observations."""

import asyncio
from contextlib import aclosing

from mooring.model.workspace import Phase
from mooring.workspaces.feed import Feed
from mooring.workspaces.ports import Observation


def seen(name: str, phase: Phase = Phase.starting, generation: int = 1) -> Observation:
    """An observation."""
    return Observation(name, generation, phase)


async def test_a_follower_begins_with_the_latest_of_each() -> None:
    """What was published before is told once, as it is now."""
    feed = Feed()
    feed.publish(seen("a"))
    feed.publish(seen("b"))
    feed.publish(seen("a", Phase.stopped))
    async with aclosing(feed.follow()) as following:
        assert [await anext(following), await anext(following)] == [seen("a", Phase.stopped), seen("b")]


async def test_a_slow_follower_skips_to_the_latest_and_past_none() -> None:
    """However much happens meanwhile, one observation a workspace waits, and it is the last."""
    feed = Feed()
    async with aclosing(feed.follow()) as following, asyncio.timeout(5):
        feed.publish(seen("a"))
        assert await anext(following) == seen("a")
        for generation in range(2, 100):
            feed.publish(seen("a", generation=generation))
        feed.publish(seen("b"))
        assert [await anext(following), await anext(following)] == [seen("a", generation=99), seen("b")]


async def test_the_same_again_is_not_told() -> None:
    """An observation that says nothing new wakes nobody."""
    feed = Feed()
    feed.publish(seen("a"))
    async with aclosing(feed.follow()) as following, asyncio.timeout(5):
        await anext(following)
        feed.publish(seen("a"))
        feed.publish(seen("b"))
        assert await anext(following) == seen("b")


async def test_what_is_forgotten_is_not_told_to_followers_to_come() -> None:
    """A deleted workspace is no news to who begins later."""
    feed = Feed()
    feed.publish(seen("a"))
    feed.publish(seen("b"))
    feed.forget("a")
    assert feed.latest("a") is None
    async with aclosing(feed.follow()) as following:
        assert await anext(following) == seen("b")
