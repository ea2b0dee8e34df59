"""Hashes everything in the store once more and says what is wrong: what `mooring goproxy verify` shows."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from mooring.errors import MooringError, NotFound, Unavailable
from mooring.goproxy import dirhash
from mooring.goproxy.checks import checked
from mooring.goproxy.faults import BadUpstream, BadZip
from mooring.goproxy.keeping import whole
from mooring.goproxy.names import Ask, Kind, parse
from mooring.goproxy.ports import Blob, Entry, FullStore

Recorded = Callable[[str, str], Awaitable[str | None]]
"""The hash that is on record for a version, or `VERSION/go.mod`, of a module; None where there is no record."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that was looked at; `problem` is empty when it is right."""

    name: str
    problem: str = ""
    unsure: bool = False
    """The file may be right, but nobody could be asked, or the storage does not hand it out now."""


async def audit(store: FullStore, recorded: Recorded) -> AsyncIterator[Finding]:
    """Every file of a module, as it is checked."""
    async for entry in store.entries():
        ask = _ask(entry)
        finding = await _looked_at(store, entry.name, ask, recorded) if ask else None
        if finding is not None:
            yield finding


async def _looked_at(store: FullStore, name: str, ask: Ask, recorded: Recorded) -> Finding | None:
    """None: it was removed meanwhile."""
    try:
        return await _opened(store, name, ask, recorded)
    except (BadZip, BadUpstream) as error:
        return Finding(name, error.detail)
    except Unavailable as error:
        return Finding(name, f"cannot be read: {error.detail}", unsure=True)
    except OSError as error:
        # A disk that begins to fail: those behind this file are to be looked at all the same.
        return Finding(name, f"cannot be read: {error.strerror}")


async def _opened(store: FullStore, name: str, ask: Ask, recorded: Recorded) -> Finding | None:
    blob = await store.open(name)
    if blob is None:
        return None
    try:
        return await _finding(ask, blob, recorded)
    finally:
        blob.close()


def _ask(entry: Entry) -> Ask | None:
    try:
        ask = parse(b"/" + os.fsencode(entry.name))
    except NotFound:
        # Hashes beside the zips, tiles: not a module's file.
        return None
    return ask if isinstance(ask, Ask) else None


async def _finding(ask: Ask, blob: Blob, recorded: Recorded) -> Finding:
    h1, subject = await _hash(ask, blob)
    if not subject:
        return Finding(ask.name)
    try:
        wanted = await recorded(ask.module, subject)
    except MooringError as error:
        return Finding(ask.name, f"cannot be checked: {error.detail}", unsure=True)
    if wanted is None:
        return Finding(ask.name, "no hash of it is on record", unsure=True)
    return Finding(ask.name, "" if wanted == h1 else f"its hash is {h1}\non record is {wanted}")


async def _hash(ask: Ask, blob: Blob) -> tuple[str, str]:
    """The hash and what it is recorded as; nothing of both for files without one."""
    if ask.kind is Kind.zip:
        with await blob.file() as file:
            return await asyncio.to_thread(dirhash.of_zip, file, f"{ask.module}@{ask.version}/"), ask.version
    data = checked(ask, await whole(blob))
    return (dirhash.of_mod(data), f"{ask.version}/go.mod") if ask.kind is Kind.mod else ("", "")
