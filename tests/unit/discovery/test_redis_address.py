"""The address of Redis, which may hold a password."""

import asyncio
from contextlib import aclosing

import pytest

from mooring.control.tasks import Tasks
from mooring.discovery.redis import RedisSource
from mooring.settings import RedisSource as RedisSettings
from support.following import until


@pytest.mark.parametrize("url", ["redis://:s3cr/et@127.0.0.1:1/0", "redis://ada:s3cret@h:s3cret/0", "http://s3cret"])
async def test_a_bad_address_is_reported_without_its_password(url: str) -> None:
    """What is wrong is said, and nothing of the address, which a slash in the password takes apart elsewhere."""
    settings = RedisSettings("ws.localhost", url)
    source = RedisSource(settings)

    async def watch() -> None:
        async with aclosing(source.watch()) as changes:
            async for _ in changes:
                raise AssertionError("it cannot be read")

    async with Tasks("watch") as tasks, asyncio.timeout(10):
        tasks.spawn("redis", watch())
        await until(lambda: bool(source.problems()))
    (problem,) = source.problems()
    assert problem.startswith("the address of Redis must be redis://")
    assert "s3cr" not in problem + repr(settings)
