"""Routes from a Redis hash: what `hosts.resolve` makes of its fields, live within a second of a change.

The hash is read twice a second, or at once when Redis announces a change (`notify-keyspace-events`) and then only
rarely otherwise. While Redis is away the last good section stays and its age rises.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from mooring.control.backoff import Backoff
from mooring.discovery.hosts import Hosts, resolve, route
from mooring.errors import InvalidInput
from mooring.routes.ports import SectionChange
from mooring.settings import RedisSource as RedisSettings

log = structlog.get_logger(__name__)

Fields = Mapping[bytes, bytes]
"""The hash as Redis holds it."""
_GAP_S = 0.2
"""From an announcement to the read, so that a hash that changes all the time keeps neither Redis nor us busy."""
_SHOWN = 10


class RedisSource:
    """A `RouteSource` of one hash. A field that is not good is ignored and reported."""

    def __init__(self, settings: RedisSettings) -> None:
        self.name = settings.name
        self.rank = settings.rank
        self._settings = settings
        self._fields: Fields | None = None
        self._hosts = Hosts({}, {})
        self._proved_at = -math.inf
        self._problem: str | None = None
        self._backoff = Backoff(first=0.1, most=2.0)

    def stale_s(self) -> float:
        return asyncio.get_running_loop().time() - self._proved_at

    def problems(self) -> tuple[str, ...]:
        ignored = self._hosts.ignored
        found = [] if self._problem is None else [self._problem]
        found += [f"field {field[:80]!r} is ignored: {ignored[field]}" for field in sorted(ignored)[:_SHOWN]]
        return (*found, f"{len(ignored) - _SHOWN} more fields are ignored") if len(ignored) > _SHOWN else tuple(found)

    async def watch(self) -> AsyncGenerator[SectionChange, None]:
        self._fields = None
        attempt = 0
        while True:
            try:
                async with self._client() as redis, AsyncExitStack() as stack:
                    announced = await stack.enter_async_context(self._announced(redis))
                    while True:
                        change = self._difference(cast("Fields", await redis.hgetall(self._settings.hash)))
                        attempt = 0
                        if change is not None:
                            yield change
                        if not await self._wait(redis, announced):
                            break
            except InvalidInput as error:
                self._note(error.detail)
            except (RedisError, OSError, ValueError) as error:
                self._note(f"Redis does not serve the hash {self._settings.hash}: {error}")
            await asyncio.sleep(self._backoff.delay(attempt))
            attempt += 1

    def _client(self) -> Redis:
        try:
            return Redis.from_url(
                self._settings.url,
                socket_timeout=self._settings.answer_s,
                socket_connect_timeout=self._settings.answer_s,
                # The loop around it tries again, and counts the time.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            # Its text repeats parts of the address, a password's among them.
            raise InvalidInput(
                "the address of Redis must be redis://, rediss:// or unix://, with a percent-encoded password"
            ) from None

    @asynccontextmanager
    async def _announced(self, redis: Redis) -> AsyncIterator[PubSub | None]:
        """A subscription to the hash's changes; None when Redis announces none."""
        if not await self._announces(redis):
            yield None
            return
        database = redis.connection_pool.connection_kwargs.get("db") or 0
        async with redis.pubsub(ignore_subscribe_messages=True) as announced:
            await announced.subscribe(f"__keyspace@{database}__:{self._settings.hash}")
            yield announced

    async def _announces(self, redis: Redis) -> bool:
        try:
            flags = (await redis.config_get("notify-keyspace-events")).get("notify-keyspace-events") or ""
        except ResponseError:
            return False  # Hosted Redis often forbids CONFIG.
        # Hash commands, and DEL and RENAME of the whole hash: with one of them missing a change would go unseen.
        return "K" in flags and ("A" in flags or {"h", "g"} <= set(flags))

    async def _wait(self, redis: Redis, announced: PubSub | None) -> bool:
        """Wait until the hash may have changed. False when Redis announces changes no more."""
        if announced is None:
            await asyncio.sleep(self._settings.poll_s)
            return True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.calm_poll_s
        while loop.time() < deadline:
            if await announced.get_message(timeout=self._settings.poll_s) is not None:
                await asyncio.sleep(_GAP_S)
                while await announced.get_message(timeout=0) is not None:
                    pass
                return True
            if not await self._announces(redis):
                return False
            self._proved_at = loop.time()
        return True

    def _difference(self, fields: Fields) -> SectionChange | None:
        """What the newest content of the hash changes; all of it the first time."""
        self._proved_at = asyncio.get_running_loop().time()
        self._note(None)
        if fields == self._fields:
            return None
        first, before, after = self._fields is None, self._hosts, resolve(fields)
        self._fields, self._hosts = dict(fields), after
        if after.ignored.keys() - before.ignored.keys():
            log.warning("fields of the hash are ignored", source=self.name, count=len(after.ignored))
        old = {} if first else before.addresses
        upserts = [route(f, a, self._settings) for f, a in after.addresses.items() if old.get(f) != a]
        deletes = tuple(sorted(old.keys() - after.addresses.keys()))
        return (
            SectionChange(self.name, tuple(upserts), deletes, complete=first) if upserts or deletes or first else None
        )

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("the last good routes of Redis stay", source=self.name, error=problem)
        elif problem is None and self._problem is not None:
            log.info("Redis serves the hash again", source=self.name)
        self._problem = problem
