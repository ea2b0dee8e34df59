"""Keeps the store below a size: the zips that nobody read for longest go first, and only those that can come back.

A zip can come back when the public checksum database vouches for its hash and the upstream offers it at this moment.
Private modules, what only the notary vouches for, and pins stay. Info and mod files are small and stay, too.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mooring.errors import Conflict, MooringError, NotFound
from mooring.goproxy.names import Ask, Kind, escape, parse
from mooring.goproxy.pins import Pins, covering
from mooring.goproxy.ports import Entry, Inventory

log = structlog.get_logger(__name__)

_AT_ONCE = 8
"""Questions to an upstream at a time, when all versions of a module should go."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """A zip that was removed, or would be."""

    ask: Ask
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an eviction did. Bytes; `kept` are the zips that could not come back, with the reason."""

    before: int
    after: int
    evicted: list[Evicted]
    kept: dict[str, str]


class Eviction:
    """`returns(ask)` raises a MooringError with the reason when a zip might not come back with the same hash."""

    def __init__(self, store: Inventory, pins: Pins, returns: Callable[[Ask], Awaitable[None]]) -> None:
        self._store = store
        self._pins = pins
        self._returns = returns
        self._ended = False

    def end(self) -> None:
        """Remove nothing any more: other settings hold for this store from now on."""
        self._ended = True

    async def run(self, max_bytes: int, *, dry_run: bool = False) -> Outcome:
        """Remove zips until the store holds at most `max_bytes`, or nothing is left that may go."""
        entries = [entry async for entry in self._store.entries()]
        before = after = sum(entry.size for entry in entries)
        pins = await self._pins.all()
        evicted: list[Evicted] = []
        kept: dict[str, str] = {}
        for entry in sorted(entries, key=lambda entry: entry.used):
            if after <= max_bytes or self._ended:
                break
            ask = _zip(entry)
            if ask is not None and await self._gone(entry, ask, pins, kept, dry_run=dry_run):
                after -= entry.size
                evicted.append(Evicted(ask, entry.size, entry.used))
        return Outcome(before, after, evicted, kept)

    async def only(self, module: str, version: str | None, *, dry_run: bool = False) -> Outcome:
        """Remove the zips of one version, or of all versions of a module, that may go; its info and mod files stay."""
        entries = [entry async for entry in self._store.entries(f"{escape(module)}/@v/")]
        zips = [(entry, ask) for entry in entries if (ask := _zip(entry)) is not None and ask.module == module]
        pins = await self._pins.all()
        evicted: list[Evicted] = []
        kept: dict[str, str] = {}
        turns = asyncio.Semaphore(_AT_ONCE)

        async def evict(entry: Entry, ask: Ask) -> None:
            async with turns:
                if await self._gone(entry, ask, pins, kept, dry_run=dry_run):
                    evicted.append(Evicted(ask, entry.size, entry.used))

        async with asyncio.TaskGroup() as group:
            for entry, ask in zips:
                if version in (None, ask.version):
                    _ = group.create_task(evict(entry, ask))
        before = sum(entry.size for entry in entries)
        return Outcome(before, before - sum(item.size for item in evicted), evicted, kept)

    async def _gone(self, entry: Entry, ask: Ask, pins: list[str], kept: dict[str, str], *, dry_run: bool) -> bool:
        """Whether the zip was removed, or would be; else `kept` says why not."""
        try:
            _check_pins(pins, ask)
            await self._returns(ask)
            # An upstream takes its time for each of many: whoever pins meanwhile was told that it stays.
            _check_pins(await self._pins.all(), ask)
            if self._ended:
                raise Conflict("other settings are in force by now: try again")
            if not dry_run:
                await self._remove(entry, ask)
        except MooringError as error:
            kept[ask.label] = error.detail
            return False
        except OSError as error:
            # A bad block in one zip would end the eviction of all others for as long as this process lives.
            kept[ask.label] = f"it cannot be read: {error.strerror}"
            return False
        return True

    async def _remove(self, entry: Entry, ask: Ask) -> None:
        await self._store.remove(entry.name)
        await self._store.remove(f"{entry.name}hash")
        log.info("evicted", module=ask.module, version=ask.version, bytes=entry.size)


def _check_pins(pins: list[str], ask: Ask) -> None:
    if pin := covering(pins, ask.module, ask.version):
        raise Conflict(f"pinned by {pin}")


def _zip(entry: Entry) -> Ask | None:
    try:
        ask = parse(b"/" + os.fsencode(entry.name))
    except NotFound:
        return None
    return ask if isinstance(ask, Ask) and ask.kind is Kind.zip else None
