"""Routes from a YAML file: `routes: [ROUTE…]`, each as `model.routes.Route` describes it. The file is watched.

A file that cannot be read or decoded keeps the last good section; the problem names the file, the route and the key.
"""

import asyncio
import math
import os
import stat
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import structlog
import watchfiles
import yaml

from mooring.control.backoff import Backoff
from mooring.errors import InvalidInput, Unavailable
from mooring.model.routes import Route
from mooring.routes.ports import SectionChange
from mooring.routes.wire import decode_route
from mooring.settings import FileSource as FileSettings

log = structlog.get_logger(__name__)

LARGEST = 16 * 2**20
"""Bytes: twice the routes that a gateway has room for. Of a larger one the reader would make gigabytes, for minutes."""


class FileSource:
    """A `RouteSource` of one file. A file that is not there has no good section: its routes stay as they were."""

    def __init__(self, settings: FileSettings) -> None:
        self.name = settings.name
        self.rank = settings.rank
        self._path = settings.path
        self._look_every_s = settings.look_every_s
        self._proved_at = -math.inf
        self._problem: str | None = None
        self._looked_at: bytes | None = None
        self._mistake: str | None = None
        self._backoff = Backoff(first=0.2, most=5.0)

    def stale_s(self) -> float:
        return asyncio.get_running_loop().time() - self._proved_at

    def problems(self) -> tuple[str, ...]:
        return () if self._problem is None else (self._problem,)

    async def watch(self) -> AsyncGenerator[SectionChange, None]:
        self._looked_at = None
        async with aclosing(self._looks()) as looks:
            async for _ in looks:
                try:
                    raw = await asyncio.to_thread(_read, self._path)
                    change = await self._changed(raw)
                except (InvalidInput, Unavailable) as error:
                    self._note(error.detail)
                    continue
                self._note(None)
                self._proved_at = asyncio.get_running_loop().time()
                if change is not None:
                    yield change

    async def _changed(self, raw: bytes) -> SectionChange | None:
        """The section, None when it is that of the last look. Raises `InvalidInput` as long as it is wrong."""
        if raw != self._looked_at:
            self._looked_at, self._mistake = raw, None
            try:
                return await asyncio.to_thread(self._section, raw)
            except InvalidInput as error:
                self._mistake = error.detail
        if self._mistake is not None:
            raise InvalidInput(self._mistake)
        return None

    def _section(self, raw: bytes) -> SectionChange:
        return SectionChange(self.name, parse(raw, str(self._path)), complete=True)

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("the route file is not usable: its last good routes stay", source=self.name, error=problem)
        self._problem = problem

    async def _looks(self) -> AsyncGenerator[None, None]:
        """One item now, one for each change that the kernel announces, and one every `look_every_s` seconds."""
        attempt = 0
        yield
        while True:
            # The folder, not the file: a file that is replaced by a rename would be watched no more.
            changes = watchfiles.awatch(
                self._path.parent,
                watch_filter=None,
                recursive=False,
                debounce=50,
                step=10,
                rust_timeout=int(self._look_every_s * 1000),
                yield_on_timeout=True,
            )
            try:
                async with aclosing(changes):
                    async for _ in changes:
                        attempt = 0
                        yield
            except (OSError, RuntimeError) as error:
                # The folder is not there, or the kernel's watches are used up: looking by the clock goes on.
                log.debug("the folder of the route file cannot be watched", error=str(error))
            await asyncio.sleep(min(self._backoff.delay(attempt), self._look_every_s))
            attempt += 1
            yield


def parse(raw: bytes, file: str) -> tuple[Route, ...]:
    """The routes in `raw`, YAML.

    Raises:
        InvalidInput: names `file`, the route and the key.
    """
    try:
        document = yaml.load(raw, _Loader)  # noqa: S506 - a safe loader that also refuses a key given twice
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise InvalidInput(f"{file}{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file}: {error}") from error
    if not isinstance(document, dict) or set(document) != {"routes"} or not isinstance(document["routes"], list):
        raise InvalidInput(f"{file}: must hold the one key routes with a list", field="routes")
    routes: dict[str, Route] = {}
    for position, item in enumerate(document["routes"]):
        place = f"routes.{position}" + (f" ({item['name']})" if isinstance(item, dict) and "name" in item else "")
        try:
            route = decode_route(orjson.dumps(item))
        except (InvalidInput, TypeError) as error:
            raise InvalidInput(f"{file}: {place}: {error}", field=f"routes.{position}") from error
        if route.name in routes:
            raise InvalidInput(f"{file}: {place}: another route has this name", field=f"routes.{position}.name")
        routes[route.name] = route
    return tuple(routes.values())


class _Loader(yaml.CSafeLoader):
    """YAML without objects and without a key that hides another one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the signature is yaml's
        seen: set[Hashable] = set()
        for at, _ in node.value:
            key = self.construct_object(at, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", at.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _read(path: Path) -> bytes:
    try:
        # A pipe that nobody writes to would keep its opening waiting, and with it the end of the process.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Of a folder `open` makes no file, and leaves the descriptor open: one lost at every look.
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unavailable(f"{path}: is no regular file")
            with open(fd, "rb", closefd=False) as file:
                raw = file.read(LARGEST + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    if len(raw) > LARGEST:
        raise InvalidInput(f"{path}: larger than {LARGEST} bytes")
    return raw
