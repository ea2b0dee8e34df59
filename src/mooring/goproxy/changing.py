"""Answers that change: lists, latest, and what a branch stands for. Believed for a lifetime, and longer in need."""

from collections.abc import Awaitable, Callable

import structlog

from mooring.control.clock import Clock
from mooring.errors import MooringError, NotFound
from mooring.goproxy import semver
from mooring.goproxy.names import Ask, Kind, escape, unescape
from mooring.goproxy.ports import Answer, Blob, FullStore
from mooring.goproxy.remembered import Remembered

log = structlog.get_logger(__name__)


class Changing:
    """Answers from the store while they are young, else from `fetch`, else from the store all the same."""

    def __init__(
        self,
        store: FullStore,
        fetch: Callable[[Ask], Awaitable[bytes]],
        clock: Clock,
        *,
        lifetime_s: float,
        failed_s: float,
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._failed_s = failed_s
        self._failed = Remembered(1000)
        self._unversioned = Remembered(100_000)

    async def get(self, ask: Ask, *, fetch: bool) -> Answer:
        """The answer. Raises as the service."""
        blob = await self._store.open(ask.name)
        if blob is None:
            return await self._first(ask) if fetch else await self._from_versions(ask)
        # A file of the future is as old as nobody knows: a clock that was set back must not make it last for years.
        if not fetch or abs(self._clock.now() - blob.modified) < self._lifetime_s:
            return Answer("hit", blob=blob)
        if self._failed.get(ask.name, self._clock.monotonic()) is not None:
            return Answer("stale", blob=blob)
        return await self._again(ask, blob)

    async def _first(self, ask: Ask) -> Answer:
        try:
            return Answer("miss", data=await self._fetch(ask))
        except MooringError as error:
            return await self._from_versions(ask, error)

    async def _again(self, ask: Ask, blob: Blob) -> Answer:
        served = False
        try:
            data = await self._fetch(ask)
        except MooringError as error:
            # What worked once goes on working when its origin is gone.
            self._failed.put(ask.name, self._clock.monotonic() + self._failed_s, error)
            log.warning("serving an old answer", ask=ask.label, error=error.detail)
            served = True
            return Answer("stale", blob=blob)
        finally:
            if not served:
                blob.close()
        self._failed.forget(ask.name)
        return Answer("refreshed", data=data)

    async def _from_versions(self, ask: Ask, error: MooringError | None = None) -> Answer:
        """A list made of the versions that are kept."""
        error = error or NotFound(f"{ask.label} is not kept here")
        if ask.kind is not Kind.list or self._unversioned.get(ask.name, self._clock.monotonic()) is not None:
            raise error
        found = await self._kept_versions(ask.module)
        if not found:
            # Nearly every path that is asked for was never published: no folder is read for each request for it.
            self._unversioned.put(ask.name, self._clock.monotonic() + self._lifetime_s, error)
            raise error
        listed = [version for version in found if not semver.is_pseudo(version)]
        return Answer("stale", data="".join(f"{version}\n" for version in listed).encode())

    async def _kept_versions(self, module: str) -> list[str]:
        prefix = f"{escape(module)}/@v/"
        versions = []
        async for entry in self._store.entries(prefix):
            name = entry.name.removeprefix(prefix)
            if name.endswith(".mod") and "/" not in name:
                versions.append(unescape(name.removesuffix(".mod")))
        return sorted(filter(semver.is_canonical, versions), key=semver.key)
