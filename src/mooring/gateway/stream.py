"""The server's sections over HTTP: a snapshot and changes, as `docs/architecture.md` describes the stream."""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import structlog

from mooring.control.backoff import Backoff
from mooring.control.tasks import Tasks
from mooring.errors import InvalidInput, MooringError, Unavailable
from mooring.gateway import link as server
from mooring.model.grants import Grants
from mooring.routes.ports import SectionChange
from mooring.routes.wire import Line, Ping, Synced, decode
from mooring.settings import ServerLink

log = structlog.get_logger(__name__)

PATH = "/api/v1/gateway/sections"
LONGEST_LINE = 256 * 2**20
"""Bytes; ten times a section of 100,000 routes."""
_WAITING_LINES = 16


class _Connected:
    """A new connection begins: the sections that it names are all that there are."""


class StreamSource:
    """Reads every section of the server. `known` are sections that an earlier life of this gateway got from it.

    Grants live `grants_s` seconds from the last line; then empty ones are published, whatever else is broken.
    """

    def __init__(self, link: ServerLink, *, name: str = "server", rank: int = 10, known: Iterable[str] = ()) -> None:
        self.name = name
        self.rank = rank
        self._link = link
        self._known = set(known)
        self._seen: set[str] = set()
        self._proved_at = -math.inf
        self._synced = False
        self._forget_at: float | None = None
        self._problem: str | None = None
        self._backoff = Backoff(first=0.1, most=5.0)

    def stale_s(self) -> float:
        return asyncio.get_running_loop().time() - self._proved_at

    def problems(self) -> tuple[str, ...]:
        return () if self._problem is None else (self._problem,)

    async def watch(self) -> AsyncGenerator[SectionChange, None]:
        self._forget_at = None
        async with Tasks(f"{self.name}-stream") as tasks:
            while True:
                lines: asyncio.Queue[Line | _Connected] = asyncio.Queue(_WAITING_LINES)
                reader = tasks.spawn("read", self._read(lines))
                while (line := await self._next(lines)) is not None:
                    for change in self._take(line):
                        yield change
                log.warning("access grants expired: nothing heard from the server", source=self.name)
                # A connection that still lives would bring pings and never the grants again.
                reader.cancel()
                yield SectionChange(source=self.name, grants=Grants())

    async def _next(self, lines: asyncio.Queue[Line | _Connected]) -> Line | _Connected | None:
        """The next line; None when grants expire before it comes."""
        try:
            async with asyncio.timeout_at(self._forget_at):
                line = await lines.get()
        except TimeoutError:
            self._forget_at = None
            return None
        self._renew(line)
        return line

    def _renew(self, line: Line | _Connected) -> None:
        """Any line but the mark of a new connection renews the grants, if there are any."""
        brings = isinstance(line, SectionChange) and line.grants is not None
        if brings or (self._forget_at is not None and not isinstance(line, _Connected)):
            lifetime = line.grants_for_s if isinstance(line, Ping) else self._link.grants_s
            self._forget_at = asyncio.get_running_loop().time() + min(lifetime, self._link.grants_s)

    def _take(self, line: Line | _Connected) -> Iterable[SectionChange]:
        if isinstance(line, _Connected):
            self._seen, self._synced = set(), False
            return ()
        changes: tuple[SectionChange, ...] = ()
        if isinstance(line, SectionChange):
            self._seen.add(line.source)
            self._known.add(line.source)
            changes = (line,)
        elif isinstance(line, Synced):
            gone, self._known = self._known - self._seen, set(self._seen)
            self._synced, self._problem = True, None
            changes = tuple(SectionChange(source=name, complete=True) for name in sorted(gone))
        if self._synced:
            self._proved_at = asyncio.get_running_loop().time()
        return changes

    async def _read(self, lines: asyncio.Queue[Line | _Connected]) -> None:
        attempt = 0
        while True:
            try:
                async with aclosing(self._connection()) as connection:
                    async for line in connection:
                        await lines.put(line)
                        # Not sooner: a snapshot that breaks every connection would be asked for ten times a second.
                        attempt = 0 if isinstance(line, Ping) else attempt
            except MooringError as error:
                self._failed(error, attempt)
            except Exception as error:
                log.exception("the stream's reader failed", source=self.name)
                self._failed(error, attempt)
            await asyncio.sleep(self._backoff.delay(attempt))
            attempt += 1

    def _failed(self, error: Exception, attempt: int) -> None:
        problem = server.describe(error)
        if problem != self._problem:
            log.warning("the server's stream broke", source=self.name, error=problem, tries=attempt)
        self._problem = problem

    async def _connection(self) -> AsyncGenerator[Line | _Connected, None]:
        """The lines of one connection until it ends, which is always an error."""
        with server.translated(self._link):
            async with server.client(self._link) as client, client.stream("GET", PATH) as response:
                server.check(self._link, response)
                yield _Connected()
                buffer = bytearray()
                async for chunk in response.aiter_raw():
                    buffer += chunk
                    if len(buffer) > LONGEST_LINE:
                        raise InvalidInput(f"a line of the stream is longer than {LONGEST_LINE} bytes")
                    for raw in _complete_lines(buffer) if b"\n" in chunk else ():
                        yield decode(raw)
        raise Unavailable("the server ended the stream")


def _complete_lines(buffer: bytearray) -> list[bytes]:
    """Take the complete lines off the front of `buffer`."""
    end = buffer.rindex(b"\n")
    lines = bytes(buffer[:end]).split(b"\n")
    del buffer[: end + 1]
    return lines
