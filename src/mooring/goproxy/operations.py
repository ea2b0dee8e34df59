"""What administrators see of a proxy and change in it, done where the proxy runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mooring.errors import Conflict, InvalidInput, MooringError, NotFound
from mooring.goproxy import semver
from mooring.goproxy.access import Subject
from mooring.goproxy.administration import (
    Evictions,
    ModuleDetail,
    ModulePage,
    ModuleSummary,
    Overview,
    Pull,
    Refused,
    Removed,
    VersionDetail,
)
from mooring.goproxy.catalog import Catalog, Kept
from mooring.goproxy.eviction import Eviction
from mooring.goproxy.keeping import read
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.pins import Pins, covering
from mooring.goproxy.ports import FullStore
from mooring.goproxy.tallies import Pulls, Tallies

_LONGEST_ORIGIN = 300


@dataclass(frozen=True, slots=True)
class Parts:
    """What the operations work on."""

    store: FullStore
    catalog: Catalog
    tallies: Tallies
    pins: Pins
    eviction: Eviction
    is_private: Callable[[str], bool]
    vouches: Callable[[str], str]
    """The name of who vouches for a module."""
    sumdb: str
    max_bytes: int | None


class Operations:
    """An `Administration`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.settings_problem: Callable[[], str] = lambda: ""
        """What is wrong with the newest settings, while those before them are in force."""

    async def overview(self, viewer: Subject) -> Overview:
        holdings, tallies = await self._parts.catalog.holdings(), self._parts.tallies
        may = partial(self._may, viewer)
        return Overview(
            size=holdings.size,
            max_bytes=self._parts.max_bytes,
            files=holdings.files,
            modules=len(holdings.modules),
            versions=len(holdings.kept),
            outcomes=dict(tallies.outcomes),
            hit_rate=tallies.hit_rate,
            counted_since=tallies.since,
            started=tallies.started,
            problem=await self._problem(),
            failures=tuple(failure for failure in reversed(tallies.errors.values()) if may(failure.module)),
            sumdb=self._parts.sumdb,
        )

    async def modules(self, viewer: Subject, text: str, after: str, limit: int) -> ModulePage:
        found = (await self._parts.catalog.holdings()).modules
        wanted = text.casefold()
        names = sorted(name for name in found if name > after and wanted in name.casefold() and self._may(viewer, name))
        pins = await self._parts.pins.all()
        page = tuple(self._summary(name, found[name], pins) for name in names[:limit])
        return ModulePage(page, page[-1].module if len(names) > limit else None)

    async def module(self, viewer: Subject, module: str, after: str, limit: int) -> ModuleDetail:
        if after and not semver.is_valid(after):
            raise InvalidInput("cursor must be one that a page had", field="cursor")
        kept = await self._kept(viewer, module)
        pins = await self._parts.pins.all()
        ordered = sorted(kept, key=lambda item: semver.key(item.version), reverse=True)
        behind = [item for item in ordered if not after or semver.compare(item.version, after) < 0]
        versions = [await self._version(item, pins) for item in behind[:limit]]
        pulls = self._parts.tallies.pulls.get(module, Pulls())
        return ModuleDetail(
            summary=self._summary(module, kept, pins),
            source="version control" if self._parts.is_private(module) else "upstream",
            misses=pulls.misses,
            last_pull=pulls.last,
            failures=tuple(f for f in reversed(self._parts.tallies.errors.values()) if f.module == module),
            versions=tuple(versions),
            after=versions[-1].version if len(behind) > limit else None,
        )

    async def pulls(self, module: str) -> tuple[Pull, ...]:
        found = self._parts.tallies.pulls.get(module, Pulls()).subjects
        return tuple(Pull(name, count) for name, count in sorted(found.items(), key=lambda item: (-item[1], item[0])))

    async def pin(self, module: str, version: str) -> None:
        _check(module, version)
        await self._parts.pins.add(_pin(module, version))

    async def unpin(self, module: str, version: str) -> None:
        await self._parts.pins.remove(_pin(module, version))

    async def evict(self, module: str, version: str, *, dry_run: bool) -> Evictions:
        _check(module, version)
        done = await self._parts.eviction.only(module, version or None, dry_run=dry_run)
        if not done.evicted and not done.kept:
            raise NotFound(f"no zip of {_pin(module, version)} is kept here")
        if version and done.kept:
            raise Conflict(f"{module}@{version} stays: {done.kept[f'{module}@{version}']}")
        if not dry_run:
            self._parts.catalog.forget()
        removed = sorted((Removed(item.ask.version, item.size) for item in done.evicted), key=lambda r: r.version)
        refused = (Refused(label.removeprefix(f"{module}@"), why) for label, why in sorted(done.kept.items()))
        return Evictions(tuple(removed), tuple(refused), dry_run)

    def _may(self, viewer: Subject, module: str) -> bool:
        return not self._parts.is_private(module) or viewer.owns(module)

    async def _kept(self, viewer: Subject, module: str) -> list[Kept]:
        found = await self._parts.catalog.versions(module) if self._may(viewer, module) else []
        if not found:
            raise NotFound(f"no version of {module} is kept here")
        return found

    async def _problem(self) -> str:
        if problem := self.settings_problem():
            return problem
        try:
            await self._parts.store.healthy()
        except MooringError as error:
            return error.detail
        return ""

    def _summary(self, module: str, kept: Sequence[Kept], pins: list[str]) -> ModuleSummary:
        names = [item.version for item in kept]
        released = [name for name in names if not semver.is_pseudo(name)]
        return ModuleSummary(
            module=module,
            private=self._parts.is_private(module),
            versions=len(kept),
            newest=max(released or names, key=semver.key),
            size=sum(item.size for item in kept),
            since=min(item.since for item in kept),
            used=max(item.used for item in kept),
            requests=self._parts.tallies.pulls.get(module, Pulls()).requests,
            pin=covering(pins, module),
        )

    async def _version(self, kept: Kept, pins: list[str]) -> VersionDetail:
        store, zip_ = self._parts.store, ask(kept.module, kept.version, Kind.zip)
        first = await read(store, f"{zip_.name}hash") if kept.zip else None
        info = await read(store, zip_.sibling(Kind.info).name)
        return VersionDetail(
            version=kept.version,
            since=kept.since,
            used=kept.used,
            size=kept.size,
            zip=kept.zip,
            pin=covering(pins, kept.module, kept.version),
            hash=first.decode(errors="replace").strip() if first else "",
            vouched_by=self._parts.vouches(kept.module),
            origin=_origin(info),
        )


def _pin(module: str, version: str) -> str:
    return f"{module}@{version}" if version else module


def _check(module: str, version: str) -> None:
    """Raise InvalidInput unless both are names that a store can have."""
    try:
        _ = ask(module, version, Kind.zip) if version else ask(module, "", Kind.list)
    except NotFound as error:
        raise InvalidInput(error.detail, field="version" if version else "module") from error


def _origin(info: bytes | None) -> str:
    """`URL COMMIT` of an info's `Origin`, which its upstream wrote: nothing in it need be there, or true."""
    try:
        origin = json.loads(info or b"{}").get("Origin")
        words = [origin.get("URL"), origin.get("Hash")] if isinstance(origin, dict) else []
    except (ValueError, AttributeError, RecursionError):
        return ""
    return " ".join(word for word in words if isinstance(word, str) and word)[:_LONGEST_ORIGIN]
