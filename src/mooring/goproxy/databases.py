"""The checksum databases that clients reach through us, and how we reach them: as the go command does."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from mooring.errors import MooringError, NotFound, Unavailable
from mooring.goproxy.names import SumdbAsk
from mooring.goproxy.ports import Remote


class Database(Protocol):
    """A database to be asked."""

    async def answer(self, rest: str) -> bytes:
        """The file `latest`, `lookup/…` or `tile/…`. Raises as `Source`."""


class DatabaseAddress:
    """A `Remote`: through the first upstream proxy that offers the database, else at the database's own address."""

    def __init__(self, name: str, upstreams: Sequence[tuple[Remote, bool]], own: Remote, *, only_own: bool) -> None:
        self._name = name
        self._upstreams = [] if only_own else upstreams
        self._own = own
        self._chosen: tuple[Remote, str] | None = None

    async def get(self, path: str) -> bytes:
        if self._chosen is None:
            self._chosen = await self._choose()
        upstream, prefix = self._chosen
        try:
            return await upstream.get(prefix + path)
        except Unavailable:
            # Whoever denied the database for a moment would have it asked elsewhere until this process ends.
            self._chosen = None
            raise

    async def _choose(self) -> tuple[Remote, str]:
        """Raises what an upstream says that neither offers nor denies the database."""
        for upstream, on_any_error in self._upstreams:
            try:
                await upstream.get(f"sumdb/{self._name}/supported")
            except NotFound:
                continue
            except MooringError:
                if not on_any_error:
                    raise
                continue
            return upstream, f"sumdb/{self._name}/"
        return self._own, ""


class SumDatabases:
    """Every database that is ours to answer for, by name."""

    def __init__(self, databases: Mapping[str, Database]) -> None:
        self._databases = databases

    async def answer(self, ask: SumdbAsk) -> bytes:
        """A file of a database.

        Raises:
            NotFound: it is none of ours, so the go command goes to the database itself.
        """
        database = self._databases.get(ask.database)
        if database is None:
            raise NotFound(f"the checksum database {ask.database} is not reached through this proxy")
        return b"" if ask.rest == "supported" else await database.answer(ask.rest)
