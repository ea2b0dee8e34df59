"""Who somebody is and may still be: users, bearer tokens, sessions and tickets, and what the gateways know of them.

Whoever calls is looked up in the store, which is the truth, so that a revocation holds for the next call, in every
replica. Remembered are the signing keys, and until the next change what all gateways and streams go by (`standing.py`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import structlog

from mooring.accounts.credentials import Caller, Redeemed, check_next, digest, is_token, new_ticket, new_token
from mooring.accounts.keyring import SESSION_S, Keyring
from mooring.accounts.ports import AccountStore, KeyStore, OwnedWorkspaces, Role, Session, Ticket, Token, User
from mooring.accounts.standing import RETRY_S, Standing
from mooring.control.clock import Clock
from mooring.errors import Conflict, InvalidInput, LimitExceeded, NotFound, Unauthenticated, Unavailable
from mooring.model.grants import PROBE_SUBJECT, Claims, Grants, TokenGrant, sign, verify
from mooring.model.names import check_owner

log = structlog.get_logger(__name__)

T = TypeVar("T")
TICKET_S = 60.0
MOST_TOKENS = 100
MOST_TICKETS = 200
"""Unused ones of a user: a script may open many workspaces, a page that asks without end fills no disk."""
MANY_SESSIONS, MOST_SESSIONS = 500, 1000
"""Of a user, until they expire. The gateways keep each one that was ended for as long, and have room for 30,000."""
SHORT_SESSION_S = 3600
"""What one beyond `MANY_SESSIONS` lasts: whoever fills all of it, or is made to by a page, is let in again soon."""
MACHINE_LABEL = "this machine"
STORE_ANSWERS_WITHIN_S = 2.0
HOUSEKEEPING_S = 3600.0


class Accounts:
    """The use cases."""

    def __init__(self, store: AccountStore, keys: KeyStore, clock: Clock, workspaces: OwnedWorkspaces) -> None:
        self._store = store
        self._keyring = Keyring(keys)
        self._clock = clock
        self._workspaces = workspaces
        self._leaving = asyncio.Lock()
        self._standing = Standing(store, clock)
        self._answered_at: float | None = None
        self.probe_token = new_token()
        """The bearer token of the readiness probe, of this process only."""

    # Users

    async def create_user(self, name: str, role: Role = Role.member) -> User:
        """Make an account.

        Raises:
            InvalidInput: for a name that is not allowed.
            Conflict: for one in use, or whose workspaces of earlier are still there.
        """
        check_owner(name, field="name")
        if await self._workspaces.count(name):
            # Made at another server while their owner was removed here: they must not fall to whoever comes next.
            raise Conflict(f"there are workspaces of an earlier user {name}: delete them first", field="name")
        return await self._add_user(name, role)

    async def user(self, name: str) -> User:
        """The account. Raises `NotFound`."""
        return await self._store.user(name)

    async def users(self, *, after: str = "", limit: int = 100) -> tuple[User, ...]:
        """Accounts with a name above `after`."""
        return await self._store.users(after=after, limit=limit)

    async def remove_user(self, name: str) -> None:
        """Remove an account with all its credentials.

        Raises:
            NotFound: when there is none.
            Conflict: while it has workspaces, or when nobody could manage accounts any more.
        """
        user = await self._store.user(name)
        async with self._leaving:
            if count := await self._workspaces.count(name):
                raise Conflict(f"{name} still has {count} workspaces: delete them first", field="name")
            if user.role is Role.admin and await self._admins() == 1:
                raise Conflict(f"{name} is the only administrator", field="name")
            await self._changing(self._store.remove_user(name, now=self._clock.now()))
        log.info("user removed", user=name)

    @asynccontextmanager
    async def staying(self, name: str) -> AsyncIterator[None]:
        """Nobody is removed meanwhile: what is made for `name` in it is not made for somebody who has gone.

        Raises:
            InvalidInput: there is no such user.
        """
        async with self._leaving:
            try:
                await self._store.user(name)
            except NotFound as error:
                raise InvalidInput(f"owner: {error.detail}", field="owner") from error
            yield

    async def ensure_admin(self, name: str, known: str | None) -> str:
        """A bearer token for the CLI on this machine: `known` if it is still an administrator's, else a new one.

        The administrator `name` is made if need be.

        Raises:
            Conflict: when `name` is somebody who is no administrator.
        """
        if known and (caller := await self._caller_or_none(known)) and caller.admin:
            return known
        try:
            user = await self._store.user(name)
        except NotFound:
            user = await self._add_user(check_owner(name), Role.admin)
        if user.role is not Role.admin:
            raise Conflict(f"{name} is no administrator", field="name")
        for token in await self._store.tokens(name):
            if token.label == MACHINE_LABEL:
                await self.revoke_token(name, token.id)
        # One more than a person may have: refused, it would keep Mooring from starting, and so from revoking any.
        _, secret = await self._make_token(name, MACHINE_LABEL, None, most=MOST_TOKENS + 1)
        return secret

    async def _add_user(self, name: str, role: Role) -> User:
        user = User(name, role, self._clock.now())
        await self._store.add_user(user)
        log.info("user created", user=name, role=role)
        return user

    async def _admins(self) -> int:
        found, after = 0, ""
        while page := await self._store.users(after=after, limit=500):
            found += sum(user.role is Role.admin for user in page)
            after = page[-1].name
        return found

    # Bearer tokens

    async def create_token(self, user: str, *, label: str, expires_in_s: int | None = None) -> tuple[Token, str]:
        """A new token and its secret, which is kept nowhere.

        Raises:
            NotFound: for a user that does not exist.
            LimitExceeded: for the 101st.
        """
        return await self._make_token(user, label, expires_in_s, most=MOST_TOKENS)

    async def _make_token(self, user: str, label: str, expires_in_s: int | None, *, most: int) -> tuple[Token, str]:
        secret, now = new_token(), self._clock.now()
        token = Token(
            id=secrets.token_hex(8),
            user=user,
            label=label,
            sha256=digest(secret),
            created_at=now,
            expires_at=now + expires_in_s if expires_in_s else 0.0,
        )
        await self._changing(self._store.add_token(token, most=most))
        return token, secret

    async def tokens(self, user: str) -> tuple[Token, ...]:
        """The tokens of a user, oldest first. Raises `NotFound` for no such user."""
        await self._store.user(user)
        return await self._store.tokens(user)

    async def revoke_token(self, user: str, token_id: str) -> None:
        """End a token and the sessions that came from it. Raises `NotFound`."""
        await self._changing(self._store.remove_token(user, token_id, now=self._clock.now()))

    async def authenticate_token(self, secret: str) -> Caller:
        """Whose token it is. Raises `Unauthenticated`."""
        if not is_token(secret):
            raise Unauthenticated("the token is not valid: those of Mooring begin with mrg_")
        try:
            token = await self._store.token(digest(secret))
            user = await self._store.user(token.user)
        except NotFound as error:
            raise Unauthenticated("the token is not valid, or not any more") from error
        if token.expires_at and token.expires_at <= self._clock.now():
            raise Unauthenticated("the token has expired")
        return Caller(user.name, user.role, "token", token.id, token.expires_at)

    async def _caller_or_none(self, secret: str) -> Caller | None:
        try:
            return await self.authenticate_token(secret)
        except Unauthenticated:
            return None

    # Tickets and sessions

    async def issue_ticket(
        self, user: str, *, host: str, path: str, caller: Caller | None = None, lifetime_s: float = TICKET_S
    ) -> tuple[str, float]:
        """The secret of a one-time link for `user` to `path` on `host`, and the second at which it expires.

        Raises:
            InvalidInput: when `path` is not a path on that host.
            NotFound: for a user that does not exist.
            LimitExceeded: for the 201st that is not used.
        """
        check_next(path)
        secret, now = new_ticket(), self._clock.now()
        until = min(now + SESSION_S, caller.expires_at or now + SESSION_S) if caller else now + lifetime_s + SESSION_S
        parent = caller.id if caller else ""
        ticket = Ticket(digest(secret), user, host, path, parent, now + lifetime_s, until)
        await self._store.add_ticket(ticket, now=now, most=MOST_TICKETS)
        return secret, now + lifetime_s

    async def redeem(self, secret: str, *, host: str) -> Redeemed:
        """Turn a ticket into a session at `host`. A ticket shown to another host is spent: somebody else has seen it.

        Raises:
            Unauthenticated: for one that is unknown, spent, expired or for another host; the text does not say which.
            LimitExceeded: for the 1,001st session at a time.
        """
        now = self._clock.now()
        try:
            ticket = await self._store.take_ticket(digest(secret))
            session = await self._begin_session(_session_of(ticket, host, now))
        except NotFound as error:
            raise Unauthenticated(
                "the link has been used or has expired: mooring console or mooring workspace open makes a new one"
            ) from error
        claims = Claims(session.id, session.user, host, int(session.expires_at))
        cookie = sign(claims, self._keyring.signing(now=now))
        return Redeemed(cookie, max(1, int(session.expires_at - now)), ticket.next)

    async def _begin_session(self, session: Session) -> Session:
        try:
            await self._store.add_session(session, most=MANY_SESSIONS)
        except LimitExceeded:
            session = replace(session, expires_at=min(session.expires_at, int(session.created_at) + SHORT_SESSION_S))
            await self._store.add_session(session, most=MOST_SESSIONS)
        return session

    async def authenticate_cookie(self, cookie: str, *, audience: str) -> Caller:
        """Whose session it is at this host. Raises `Unauthenticated`."""
        claims = verify(cookie, self._keyring.keys, audience=audience, now=self._clock.now())
        try:
            session = await self._store.session(claims.session)
            user = await self._store.user(claims.subject)
        except NotFound as error:
            raise Unauthenticated("the session has ended: sign in again") from error
        if session.revoked_at or session.user != user.name or session.audience != audience:
            raise Unauthenticated("the session has ended: sign in again")
        return Caller(user.name, user.role, "session", session.id, float(claims.expires))

    async def sign_out(self, session_id: str) -> None:
        """End a session and those that came from it. Raises `NotFound`."""
        await self._changing(self._store.revoke_session(session_id, now=self._clock.now()))

    async def sign_out_everywhere(self, user: str) -> None:
        """End every session of a user. Raises `NotFound` for no such user."""
        await self._store.user(user)
        await self._changing(self._store.revoke_sessions(user, now=self._clock.now()))

    async def until_invalid(self, caller: Caller) -> None:
        """Return once the caller's credential does not hold any more: what it opened must end then."""
        await self._standing.until_invalid(caller)

    # What the gateways know

    async def grants(self) -> Grants:
        """Everything that a gateway needs to check access by itself; waits for a database that is away.

        Raises:
            Unavailable: there is no key to sign with yet, and the disk takes none.
        """
        known, now = await self._standing.known(), self._clock.now()
        if not self._keyring.keys:
            self._keyring.rotate(now=now)
        tokens = [
            TokenGrant(token.sha256, token.user, token.id, int(token.expires_at))
            for token in known.tokens
            if not token.expires_at or token.expires_at > now
        ]
        tokens.append(TokenGrant(digest(self.probe_token), PROBE_SUBJECT, "probe"))
        revoked = tuple((session.id, int(session.expires_at) + 1) for session in known.revoked)
        return Grants(self._keyring.keys, tuple(tokens), revoked)

    async def follow_grants(self) -> AsyncIterator[Grants]:
        """The grants, then again after each change, for ever; a disk that takes no key is asked again."""
        while True:
            changed = self._standing.changed
            try:
                grants = await self.grants()
            except Unavailable as error:
                log.warning("grants cannot be made", reason=error.detail)
                await asyncio.sleep(RETRY_S)
                continue
            yield grants
            await changed.wait()

    def refresh(self) -> None:
        """Look again at what may still hold: another server on the same database changed something."""
        self._standing.wake()

    async def keep(self) -> None:
        """Rotate keys and forget what has expired, for ever."""
        while True:
            try:
                now = self._clock.now()
                if self._keyring.rotate(now=now):
                    self._standing.wake()
                await self._store.prune(now=now)
            except Unavailable as error:
                log.warning("accounts could not be tidied", reason=error.detail)
            await self._clock.sleep(HOUSEKEEPING_S)

    async def database_age_s(self) -> float | None:
        """Ask the store now: seconds since it last answered, None when it never did."""
        try:
            async with asyncio.timeout(STORE_ANSWERS_WITHIN_S):
                await self._store.users(after="", limit=1)
            self._answered_at = self._clock.monotonic()
        except (Unavailable, TimeoutError) as error:
            log.warning("the database does not answer", reason=str(error))
        return None if self._answered_at is None else self._clock.monotonic() - self._answered_at

    async def _changing(self, work: Awaitable[T]) -> T:
        try:
            return await work
        finally:
            # Also when the caller went away while the store committed: the gateways must hear of it.
            self._standing.wake()


def _session_of(ticket: Ticket, host: str, now: float) -> Session:
    if ticket.host != host or ticket.expires_at <= now:
        raise NotFound("the ticket is not for this host and time")
    expires = int(min(now + SESSION_S, ticket.session_until))
    return Session(secrets.token_hex(16), ticket.user, host, ticket.parent, now, expires)
