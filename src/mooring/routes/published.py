"""Sections that programs outside Mooring publish over the API: checked, kept, and put into the server's table."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from mooring.errors import Conflict, InvalidInput, NotFound
from mooring.model.names import Hosts
from mooring.model.routes import Route
from mooring.routes.ports import FIRST_RANK, LAST_RANK, SectionChange
from mooring.routes.rules import Rules
from mooring.routes.table import RouteTable

log = structlog.get_logger(__name__)

_SOURCE = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class PublishedSection:
    """All the routes of one publisher, with the rank that it asked for."""

    source: str
    rank: int
    routes: tuple[Route, ...]


class SectionStore(Protocol):
    """Where published sections are kept. Every method may raise `Unavailable` when the database is gone."""

    async def sections(self) -> tuple[PublishedSection, ...]:
        """All of them."""

    async def keep_section(self, section: PublishedSection) -> None:
        """Insert or replace it."""

    async def drop_section(self, source: str) -> None:
        """Forget it. Raises `NotFound`."""


class MemorySections:
    """A `SectionStore` that forgets at the end of the process."""

    def __init__(self) -> None:
        self._sections: dict[str, PublishedSection] = {}

    async def sections(self) -> tuple[PublishedSection, ...]:
        return tuple(self._sections[source] for source in sorted(self._sections))

    async def keep_section(self, section: PublishedSection) -> None:
        self._sections[section.source] = section

    async def drop_section(self, source: str) -> None:
        if self._sections.pop(source, None) is None:
            raise NotFound(f"nobody publishes a section {source}")


class Publisher:
    """Publishes sections into `table`. `built_in` are the names of sources that nobody may publish under."""

    def __init__(
        self,
        table: RouteTable,
        store: SectionStore,
        hosts: Hosts,
        built_in: Iterable[str],
        rules: Rules | None = None,
    ) -> None:
        self._table = table
        self._store = store
        self._hosts = hosts
        self._built_in = frozenset(built_in)
        self._rules = rules
        self._published: set[str] = set()
        # What is kept last must be what is served last.
        self._changing = asyncio.Lock()

    @property
    def published(self) -> frozenset[str]:
        """The sources published over the API."""
        return frozenset(self._published)

    async def restore(self) -> None:
        """Make the table what is kept: at the start, and when another server published. Raises `Unavailable`."""
        async with self._changing:
            kept = await self._store.sections()
            for section in kept:
                self._apply(section)
            for source in self._published - {section.source for section in kept}:
                self._remove(source)

    async def publish(self, section: PublishedSection) -> None:
        """Keep it, then serve it, as a whole.

        Raises:
            InvalidInput: a source, a rank or a route that nobody may publish.
            Conflict: the source is a built-in one.
        """
        self._check(section)
        async with self._changing:
            await self._store.keep_section(section)
            self._apply(section)
        log.info("section published", source=section.source, rank=section.rank, routes=len(section.routes))

    async def withdraw(self, source: str) -> None:
        """Forget a section and serve none of it. Raises `NotFound`."""
        async with self._changing:
            await self._store.drop_section(source)
            self._remove(source)
        log.info("section withdrawn", source=source)

    def _remove(self, source: str) -> None:
        self._published.discard(source)
        self._table.apply(SectionChange(source, complete=True), LAST_RANK)

    def _apply(self, section: PublishedSection) -> None:
        self._table.apply(SectionChange(section.source, section.routes, complete=True), section.rank)
        self._published.add(section.source)

    def _check(self, section: PublishedSection) -> None:
        if _SOURCE.fullmatch(section.source) is None:
            raise InvalidInput("source must be 1 to 32 of a-z, 0-9 and -, from a letter on", field="source")
        if section.source in self._built_in:
            raise Conflict(f"{section.source} is a source of Mooring's own", field="source")
        if not FIRST_RANK <= section.rank <= LAST_RANK:
            raise InvalidInput(f"rank must be {FIRST_RANK} to {LAST_RANK}", field="rank")
        names = set[str]()
        for position, route in enumerate(section.routes):
            if route.name in names:
                raise InvalidInput(f"two routes are called {route.name}", field=f"routes.{position}.name")
            names.add(route.name)
            self._check_route(route, f"routes.{position}")
            if self._rules and (why := self._rules.refusal(section.source, route)):
                raise InvalidInput(f"routes.{position} ({route.name}): {why}", field=f"routes.{position}.backends")

    def _check_route(self, route: Route, field: str) -> None:
        # A longer path on the console's host would win there, and see its cookies.
        if route.host == self._hosts.console:
            raise InvalidInput("host: the console's host is not for others", field=f"{field}.host")
        if route.workspace is not None or any(b.listener_of or b.identity for b in route.backends):
            raise InvalidInput(
                "workspace, listener_of and identity are for the routes of workspaces", field=f"{field}.workspace"
            )
