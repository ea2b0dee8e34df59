"""The last good table on disk, so that a gateway that starts while its sources are away serves what it knew.

The file holds the lines of `routes.wire`: a change for each route, and `synced` at its end, without which it was cut
short. It holds no grants: what was revoked meanwhile must not come back with it.
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import structlog

from mooring.errors import InvalidInput
from mooring.model.routes import Route, RouteState
from mooring.routes.ports import Delta, RouteKey, SectionChange
from mooring.routes.table import RouteTable, Subscription
from mooring.routes.wire import Synced, decode, encode

log = structlog.get_logger(__name__)

_SLICE = 500
"""Routes encoded at a stretch; about 2 ms, so that publishing is never held up for longer."""


class Snapshot:
    """The file at `path`. `debounce_s`: a busy table is written at most so often; a kill loses that much of news."""

    def __init__(self, path: Path, *, debounce_s: float = 1.0, retry_s: float = 10.0) -> None:
        self._path = path
        self._debounce_s = debounce_s
        self._retry_s = retry_s
        self._lines: dict[RouteKey, bytes] = {}
        self._problem: str | None = None

    def problems(self) -> tuple[str, ...]:
        """Why the table cannot be kept now, if so."""
        return () if self._problem is None else (self._problem,)

    def load(self) -> tuple[SectionChange, ...]:
        """The sections that were kept, complete, with their ranks; none when there is no file or it is damaged.

        A backend whose address may belong to another workspace by now is left out, and its route is `starting`
        until its source publishes it again.
        """
        try:
            return _sections(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, InvalidInput) as error:
            log.error("the kept table is not usable: starting without it", path=str(self._path), error=str(error))  # noqa: TRY400 - the file is at fault, not a line of code
            return ()

    async def keep(self, table: RouteTable) -> None:
        """Write the table after every change, for ever. A disk that is full or gone is tried again."""
        written = True
        with table.subscribe() as changes:
            while True:
                delta = await self._next(changes, None if written else self._retry_s)
                await self._encode(table, delta)
                written = await self._write()
                await asyncio.sleep(self._debounce_s)

    async def _next(self, changes: Subscription, within_s: float | None) -> Delta:
        """The next change; an empty one when none comes in time."""
        try:
            async with asyncio.timeout(within_s):
                return (await anext(changes))[1]
        except TimeoutError:
            return Delta()

    async def _encode(self, table: RouteTable, delta: Delta) -> None:
        if delta.complete:
            self._lines.clear()
        for key in delta.deletes:
            self._lines.pop(key, None)
        for start in range(0, len(delta.upserts), _SLICE):
            sections = table.sections()
            for key, route in delta.upserts[start : start + _SLICE]:
                self._lines[key] = encode(SectionChange(key.source, (route,), rank=sections[key.source].rank))
            await asyncio.sleep(0)

    async def _write(self) -> bool:
        try:
            await asyncio.to_thread(_replace, self._path, b"".join([*self._lines.values(), encode(Synced())]))
        except OSError as error:
            if self._problem is None:
                log.warning("the table cannot be kept on disk", path=str(self._path), error=str(error))
            self._problem = f"the last good table cannot be written: {error}"
            return False
        if self._problem is not None:
            log.info("the table is kept on disk again", path=str(self._path))
        self._problem = None
        return True


def withhold(route: Route) -> Route:
    """`route` without the backends that may belong to somebody else by now: `starting` when none is left."""
    trusted = tuple(b for b in route.backends if b.identity is None or b.unix is not None)
    if len(trusted) == len(route.backends):
        return route
    serving = route.state is RouteState.serving
    state = RouteState.starting if serving and not trusted and route.filters.redirect is None else route.state
    return route.model_copy(update={"backends": trusted, "state": state})


def _sections(raw: bytes) -> tuple[SectionChange, ...]:
    lines = [decode(line) for line in raw.split(b"\n") if line]
    if not lines or not isinstance(lines[-1], Synced):
        raise InvalidInput("the file was cut short")
    return tuple(_grouped(line for line in lines if isinstance(line, SectionChange)))


def _grouped(changes: Iterable[SectionChange]) -> Iterable[SectionChange]:
    routes: dict[str, list[Route]] = {}
    ranks: dict[str, int | None] = {}
    for change in changes:
        routes.setdefault(change.source, []).extend(map(withhold, change.upserts))
        ranks[change.source] = change.rank
    for source, section in routes.items():
        yield SectionChange(source, tuple(section), complete=True, rank=ranks[source])


def _replace(path: Path, content: bytes) -> None:
    """Write `content` so that a reader, also after a power cut, finds the old file or the new one.

    Raises:
        OSError: the old file is untouched and nothing else is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
