"""Which modules are private, and so where each one comes from and who vouches for it. No upstream hears of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mooring.errors import Forbidden
from mooring.goproxy.names import matches_any, parse_lookup
from mooring.goproxy.notary import Notary
from mooring.goproxy.ports import Source, Verification
from mooring.goproxy.sumdb import SumDB


@dataclass(frozen=True, slots=True)
class Sources:
    """Chooses by the module's path alone: a private module is never looked for anywhere else, whatever fails."""

    private: tuple[str, ...]
    unrecorded: tuple[str, ...]
    """Public modules that the public database is not asked about."""
    public: Source
    direct: Source
    database: Verification | None
    notary: Verification

    def is_private(self, module: str) -> bool:
        """Whether it comes from version control, and only those who may have it get it."""
        return matches_any(self.private, module)

    def source(self, module: str) -> Source:
        """Where it comes from."""
        return self.direct if self.is_private(module) else self.public

    def by_notary(self, module: str) -> bool:
        """Whether the notary is the one that vouches for it."""
        return self.database is None or self.is_private(module) or matches_any(self.unrecorded, module)

    def verification(self, module: str) -> Verification:
        """Who vouches for it."""
        if self.database is None or self.by_notary(module):
            return self.notary
        return self.database


class PublicDatabase:
    """The public database for clients, who may not make us name a private module to it."""

    def __init__(self, database: SumDB, sources: Sources, notary_key: str) -> None:
        self._database = database
        self._sources = sources
        self._notary_key = notary_key

    async def answer(self, rest: str) -> bytes:
        """A file. Raises as `Source`."""
        if rest.startswith("lookup/"):
            module, _ = parse_lookup(rest)
            if self._sources.is_private(module):
                raise Forbidden(f"{module} is private: set GOSUMDB={self._notary_key}, or GONOSUMDB for it")
        return await self._database.answer(rest)


class NotaryDatabase:
    """The notary as a checksum database: a look-up of what is not recorded yet has it fetched, verified, recorded."""

    def __init__(
        self,
        notary: Notary,
        confirmed: Callable[[str, str], Awaitable[tuple[str, str] | None]],
        fetch: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """`confirmed(module, version)`: what the public database says, None for those it does not vouch for.

        `fetch(module, version)` has a module's zip fetched, after which the notary knows it.
        """
        self._notary = notary
        self._confirmed = confirmed
        self._fetch = fetch

    async def answer(self, rest: str) -> bytes:
        """A file. Raises as `Source`."""
        if rest.startswith("lookup/"):
            await self._record(rest)
        return await self._notary.get(rest)

    async def _record(self, rest: str) -> None:
        module, version = parse_lookup(rest)
        if await self._notary.knows(module, version):
            return
        hashes = await self._confirmed(module, version)
        if hashes is None:
            await self._fetch(module, version)
        else:
            await self._notary.add(module, version, hashes)
