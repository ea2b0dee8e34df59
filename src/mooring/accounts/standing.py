"""Which credentials hold: read once after each change, for all who wait for the end of theirs and for the gateways."""

import asyncio
from dataclasses import dataclass

import structlog

from mooring.accounts.credentials import Caller
from mooring.accounts.ports import AccountStore, Session, Token
from mooring.control.clock import Clock
from mooring.errors import Unavailable

log = structlog.get_logger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """Every token, and the sessions that were revoked before their time."""

    tokens: tuple[Token, ...]
    revoked: tuple[Session, ...]
    valid: frozenset[str]
    ended: frozenset[str]
    changed: asyncio.Event


class Standing:
    """What is known of all credentials since the last change. `changed` is set by the next one."""

    def __init__(self, store: AccountStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reading = asyncio.Lock()
        self._known: Known | None = None
        self.changed = asyncio.Event()

    def wake(self) -> None:
        """Something changed: here, or at another server on the same database."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def known(self) -> Known:
        """What the store had after the last change; waits for a store that is away."""
        # A thousand streams that each asked a database that is away would keep the server busy with its refusals.
        async with self._reading:
            if self._known is None or self._known.changed is not self.changed:
                self._known = await self._read()
            return self._known

    async def until_invalid(self, caller: Caller) -> None:
        """Return once the caller's credential does not hold any more."""
        while True:
            left_s = caller.expires_at - self._clock.now() if caller.expires_at else None
            if left_s is not None and left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    changed = self.changed
                    if not await self._holds(caller):
                        return
                    await changed.wait()
            except TimeoutError:
                continue
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def _holds(self, caller: Caller) -> bool:
        known = await self.known()
        if caller.id in known.ended:
            return False
        if caller.credential == "session" or caller.id in known.valid:
            return True
        # Removed; or made at another server a moment ago, of which this one has not heard.
        return any(token.id == caller.id for token in await self._store.tokens(caller.user))

    async def _read(self) -> Known:
        while True:
            # Before the look: a change that it may have missed must make it out of date.
            changed = self.changed
            try:
                tokens = await self._store.tokens(None)
                revoked = await self._store.revoked(now=self._clock.now())
            except Unavailable as error:
                log.warning("tokens and sessions cannot be read", reason=error.detail)
                await asyncio.sleep(RETRY_S)
                continue
            valid = frozenset(token.id for token in tokens)
            return Known(tokens, revoked, valid, frozenset(session.id for session in revoked), changed)
