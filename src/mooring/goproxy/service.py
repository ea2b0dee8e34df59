"""The use cases: answer an ask from the store or else from a source, verified before anybody sees the end of it."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import structlog

from mooring.control.clock import Clock, SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import MooringError, NotFound, Unavailable
from mooring.goproxy import dirhash
from mooring.goproxy.changing import Changing
from mooring.goproxy.checks import checked
from mooring.goproxy.faults import BadUpstream, Mismatch, NoSpace, Unreadable
from mooring.goproxy.flight import HELD, Flight, Once
from mooring.goproxy.keeping import keep, read, whole
from mooring.goproxy.names import Ask, Kind
from mooring.goproxy.names import ask as ask_for
from mooring.goproxy.ports import Answer, FullStore, Source, Verification
from mooring.goproxy.remembered import Remembered

log = structlog.get_logger(__name__)
T = TypeVar("T")

_SETTLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds for which an answer that may change is believed without asking again."""

    mutable_s: float = 30.0
    """Lists, latest, branches: half of the 60 s within which a new tag must be visible."""
    absent_s: float = 30.0
    """Proven absence, and repositories that cannot be read: the go command asks for every prefix of an import path,
    nearly all of which are misses."""
    failed_s: float = 5.0
    """A source that failed is left alone for so long where an older answer can be served."""
    absences: int = 100_000
    """How many absences are remembered; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a proxy is made of."""

    store: FullStore
    spool: Path
    """A folder on the store's file system; what is on its way is kept there."""
    source: Callable[[str], Source]
    """The source for a module path: private ones never go where public ones do."""
    verification: Callable[[str], Verification]
    """Who vouches for a module path."""


class Proxy:
    """Answers asks. Belongs to one event loop; `tasks` owns what it starts."""

    def __init__(
        self, parts: Parts, tasks: Tasks, *, lifetimes: Lifetimes | None = None, clock: Clock | None = None
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._tasks = tasks
        self._once = Once(tasks)
        self._flights: dict[str, Flight] = {}
        self._lifetimes = lifetimes or Lifetimes()
        self._clock = clock or SystemClock()
        self._absent = Remembered(self._lifetimes.absences)
        self._changing = Changing(
            self._store,
            self._fetch,
            self._clock,
            lifetime_s=self._lifetimes.mutable_s,
            failed_s=self._lifetimes.failed_s,
        )

    async def get(self, ask: Ask, *, fetch: bool = True, ahead: bool = False) -> Answer:
        """The answer to `ask`; with `fetch` off only from what is kept.

        With `ahead` the go.mod of a public version is fetched beside its info: the go command asks for it next.

        Raises:
            NotFound: it does not exist, or is not kept and must not be fetched.
            MooringError: as `Source` and `Verification`.
        """
        if not ask.immutable:
            return await self._changing.get(ask, fetch=fetch)
        if (blob := await self._store.open(ask.name)) is not None:
            if blob.size:
                return Answer("hit", blob=blob)
            # No file of the protocol is empty: this one lost its bytes in a crash of the machine.
            blob.close()
        if not fetch:
            raise NotFound(f"{ask.label} is not kept here")
        self._raise_if_absent(ask)
        if ask.kind is Kind.zip:
            return Answer("miss", flight=self._flight(ask))
        if ahead and ask.kind is Kind.info and not self._parts.verification(ask.module).records:
            mod = ask.sibling(Kind.mod)
            _ = self._tasks.spawn(f"ahead {mod.label}", self._ahead(mod))
        return Answer("miss", data=await self._fetch(ask))

    def _raise_if_absent(self, ask: Ask) -> None:
        if (error := self._absent.get(ask.name, self._clock.monotonic())) is not None:
            raise error

    def _remember(self, ask: Ask, error: MooringError) -> None:
        # Each try at a repository that refuses us is a run of git, and has one of the few turns.
        if isinstance(error, NotFound | Unreadable):
            self._absent.put(ask.name, self._clock.monotonic() + self._lifetimes.absent_s, error)

    async def mod_hash(self, module: str, version: str) -> str:
        """The verified hash of the go.mod that goes with a zip, all of which is here; fetched where need be.

        Raises as `get`, and Mismatch where the zip holds another one: somebody moved the tag in between, or git encodes
        it anew.
        """
        wanted = ask_for(module, version, Kind.mod)
        mod = await self._mod(wanted)
        if not dirhash.same_mod(mod, await self._mod_of_zip(wanted.sibling(Kind.zip))):
            raise Mismatch(
                f"{module}@{version}: the go.mod in its zip is not the one that came before it. "
                "Somebody changed a published version, or its .gitattributes give go.mod a working-tree-encoding."
            )
        return dirhash.of_mod(mod)

    async def _mod(self, ask: Ask) -> bytes:
        answer = await self.get(ask)
        if answer.blob is None:
            return answer.data
        try:
            return await whole(answer.blob)
        finally:
            answer.blob.close()

    async def _mod_of_zip(self, ask: Ask) -> bytes | None:
        flight = self._flights.get(ask.name)
        if flight is None:
            return await self._of_kept_zip(ask, dirhash.mod_of_zip)
        return await asyncio.to_thread(dirhash.mod_of_zip, flight.spool, _below(ask))

    async def zip_hash(self, module: str, version: str) -> str:
        """The hash of a zip that is kept. Raises NotFound when it is not."""
        return await self._of_kept_zip(ask_for(module, version, Kind.zip), dirhash.of_zip)

    async def _of_kept_zip(self, ask: Ask, find: Callable[[IO[bytes], str], T]) -> T:
        blob = await self._store.open(ask.name)
        if blob is None:
            raise NotFound(f"{ask.label} is not kept here")
        try:
            with await blob.file() as file:
                return await asyncio.to_thread(find, file, _below(ask))
        finally:
            blob.close()

    async def kept_hash(self, ask: Ask) -> str:
        """The hash that was verified when a zip came. Raises NotFound when it is not kept."""
        kept = await read(self._store, f"{ask.name}hash")
        if kept is None:
            return await self.zip_hash(ask.module, ask.version)
        return kept.decode(errors="replace").strip()

    async def ensure(self, ask: Ask) -> None:
        """Have a file in the store. Raises as `get`, and Unavailable where the store does not take it."""
        if await self.verify(ask) == "hit":
            return
        blob = await self._store.open(ask.name)
        if blob is not None:
            blob.close()
        if blob is None or not blob.size:
            await self._store.healthy()
            raise Unavailable(f"{ask.label} came, and could not be kept")

    async def verify(self, ask: Ask) -> str:
        """Have a file fetched and verified where need be, kept or not. The outcome; raises as `get`."""
        answer = await self.get(ask)
        try:
            if answer.flight is not None:
                await answer.flight.landed()
        finally:
            answer.close()
        return answer.outcome

    async def settle(self) -> None:
        """Wait until what somebody may have had the end of is kept, for ten seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                for flight in [one for one in self._flights.values() if one.ended]:
                    with contextlib.suppress(MooringError):
                        await flight.landed()

    async def _fetch(self, ask: Ask) -> bytes:
        """A small file from its source, checked, verified and kept."""
        self._raise_if_absent(ask)
        return await self._once.do(ask.name, lambda: self._fetch_once(ask))

    def _prepare(self, ask: Ask) -> None:
        """One way to the database and back is saved for everything that is cold."""
        verification = self._parts.verification(ask.module)
        _ = self._tasks.spawn(f"prepare {ask.label}", verification.prepare(ask.module, ask.version))

    async def _ahead(self, ask: Ask) -> None:
        # Whoever asks for it hears what went wrong.
        with contextlib.suppress(MooringError):
            await self.verify(ask)

    async def _fetch_once(self, ask: Ask) -> bytes:
        if ask.kind is Kind.mod:
            self._prepare(ask)
        data = checked(ask, await self._small(ask))
        if ask.kind is Kind.mod:
            h1 = dirhash.of_mod(data)
            await self._parts.verification(ask.module).check(ask.module, f"{ask.version}/go.mod", h1)
        await keep(self._store, ask.name, data)
        return data

    async def _small(self, ask: Ask) -> bytes:
        try:
            return await self._parts.source(ask.module).small(ask)
        except MooringError as error:
            self._remember(ask, error)
            raise

    def _flight(self, ask: Ask) -> Flight:
        flight = self._flights.get(ask.name)
        if flight is None:
            try:
                flight = Flight(self._parts.spool / secrets.token_hex(12))
            except OSError as error:
                raise NoSpace(f"the proxy's disk takes no more: {error.strerror}") from error
            self._flights[ask.name] = flight
            _ = self._tasks.spawn(ask.name, self._receive(ask, flight))
        flight.join()
        return flight

    async def _receive(self, ask: Ask, flight: Flight) -> None:
        failure: MooringError = Unavailable("the proxy is stopping")
        try:
            await self._receive_zip(ask, flight)
        except MooringError as error:
            failure = error
            self._remember(ask, error)
            if not isinstance(error, NotFound):
                log.warning("zip refused", ask=ask.label, error=error.detail)
        except Exception:
            failure = Unavailable("the proxy could not finish this request")
            raise
        finally:
            del self._flights[ask.name]
            flight.end(failure)
            flight.land()
            with contextlib.suppress(OSError):
                flight.spool.unlink()

    async def _receive_zip(self, ask: Ask, flight: Flight) -> None:
        self._prepare(ask)
        async with self._parts.source(ask.module).zip(ask) as download:
            flight.size = download.size
            if download.size is not None and download.size > HELD:
                await asyncio.to_thread(flight.reserve, download.size)
            async for chunk in download.chunks:
                flight.write(chunk)
        if download.size is not None and download.size != flight.received:
            raise BadUpstream(f"{ask.label}: {flight.received} bytes came of {download.size}")
        h1 = await asyncio.to_thread(dirhash.of_zip, flight.spool, _below(ask))
        await self._parts.verification(ask.module).check(ask.module, ask.version, h1)
        flight.end()
        try:
            await self._store.adopt(ask.name, flight.spool)
        except Unavailable as error:
            log.warning("not kept", file=ask.name, error=error.detail)
        else:
            await keep(self._store, f"{ask.name}hash", h1.encode())


def _below(ask: Ask) -> str:
    """What the names of all files of a zip begin with."""
    return f"{ask.module}@{ask.version}/"
