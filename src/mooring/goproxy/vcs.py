"""Private modules, from version control by the go command. Info and mod never make it build a zip."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from mooring.errors import NotFound
from mooring.goproxy.clones import Clone
from mooring.goproxy.faults import BadUpstream
from mooring.goproxy.flight import Once
from mooring.goproxy.gocommand import GoCommand, translated
from mooring.goproxy.names import Ask, Kind
from mooring.goproxy.ports import Download

log = structlog.get_logger(__name__)

_CHUNK = 256 * 1024
_BOUND_EVERY_S = 60.0


class VersionControl:
    """A `Source`: repositories wherever the module paths lead."""

    def __init__(self, command: GoCommand, once: Once) -> None:
        self._command = command
        self._once = once
        self._turn = asyncio.Semaphore(command.limits.at_once)

    async def small(self, ask: Ask) -> bytes:
        if ask.kind is Kind.list:
            # Without retracted ones nobody would hear of a version that retracts itself, nor of what else it retracts.
            found = await self._found(f"{ask.module}@latest", "-versions", "-retracted")
            return "".join(f"{version}\n" for version in found.get("Versions", [])).encode()
        # Info and mod come from the same run: the go command asks for them at the same time.
        found = await self._found(f"{ask.module}@{ask.version or 'latest'}")
        if ask.kind is Kind.mod:
            return await self._mod(ask, found)
        info = {name: found[name] for name in ("Version", "Time", "Origin") if name in found}
        return json.dumps(info, separators=(",", ":")).encode()

    async def _found(self, query: str, *options: str) -> dict[str, Any]:
        arguments = ("list", "-m", "-json", *options, query)
        found: dict[str, Any] = json.loads(await self._once.do(" ".join(arguments), lambda: self._list(arguments)))
        return found

    async def _list(self, arguments: tuple[str, ...]) -> bytes:
        async with self._turn:
            output = await self._command.run(*arguments)
            await self._used(json.loads(output))
            return output

    async def _used(self, found: dict[str, Any]) -> None:
        url = found.get("Origin", {}).get("URL")
        if url:
            await asyncio.to_thread(self._command.clones.used, url)

    async def bound(self) -> None:
        """Keep the clones within their limit, and remove what killed runs left; for ever."""
        while True:
            await _tried(asyncio.to_thread(self._command.sweep), "what runs of the go command left stays")
            await asyncio.sleep(_BOUND_EVERY_S)
            await _tried(self.shrink(), "the clones are not kept within their limit")

    async def shrink(self) -> list[Clone]:
        """Remove the clones that were used longest ago while all are beyond their limit; those that went."""
        limits, clones = self._command.limits, self._command.clones
        if sum(clone.size for clone in await asyncio.to_thread(clones.all)) <= limits.clones_bytes:
            return []
        async with AsyncExitStack() as turns:
            # With every turn in our hands none of our own runs is under way.
            for _ in range(limits.at_once):
                await turns.enter_async_context(self._turn)
            gone = await asyncio.to_thread(clones.shrink, limits.clones_bytes)
        for clone in gone:
            log.info("clone removed", folder=clone.folder.name, bytes=clone.size)
        return gone

    async def _mod(self, ask: Ask, found: dict[str, Any]) -> bytes:
        if "GoMod" not in found:
            raise BadUpstream(f"{ask.label}: the go command found no go.mod")
        return await asyncio.to_thread(Path(found["GoMod"]).read_bytes)

    @asynccontextmanager
    async def zip(self, ask: Ask) -> AsyncIterator[Download]:
        async with self._turn, self._command.holding():
            output = await self._command.run("mod", "download", "-json", f"{ask.module}@{ask.version}")
            found = json.loads(output)
            if found.get("Error"):
                raise translated(ask.label, found["Error"])
            if "Zip" not in found:
                raise NotFound(f"{ask.label}: the go command made no zip")
            await self._used(found)
            file = Path(found["Zip"])
            try:
                size = (await asyncio.to_thread(file.stat)).st_size
                yield Download(size, _chunks(file))
            finally:
                await asyncio.to_thread(self._clean, file, found.get("Dir"))

    def _clean(self, file: Path, folder: str | None) -> None:
        for name in (file, file.with_name(f"{file.name}hash")):
            name.unlink(missing_ok=True)
        if folder:
            self._command.clean(Path(folder))


async def _tried(bound: Awaitable[object], otherwise: str) -> None:
    try:
        await bound
    except OSError as error:
        # What cannot be removed now is tried again, and must not keep the rest from its bound.
        log.warning(otherwise, error=str(error))


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, _CHUNK):
            yield chunk
