"""Accounts in memory: what the tests run on, and the contract's plainest reading."""

from dataclasses import replace

from mooring.accounts.ports import Session, Ticket, Token, User, too_many_sessions, too_many_tickets, too_many_tokens
from mooring.errors import Conflict, NotFound
from mooring.model.grants import SigningKey


class MemoryAccounts:
    """An `AccountStore` that forgets at the end of the process."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._tokens: dict[str, Token] = {}
        self._tickets: dict[str, Ticket] = {}
        self._sessions: dict[str, Session] = {}

    async def add_user(self, user: User) -> None:
        if user.name in self._users:
            raise Conflict(f"there is a user {user.name} already", field="name")
        self._users[user.name] = user

    async def user(self, name: str) -> User:
        if name not in self._users:
            raise NotFound(f"there is no user {name}")
        return self._users[name]

    async def users(self, *, after: str, limit: int) -> tuple[User, ...]:
        names = sorted(name for name in self._users if name > after)
        return tuple(self._users[name] for name in names[:limit])

    async def remove_user(self, name: str, *, now: float) -> None:
        await self.user(name)
        for token in await self.tokens(name):
            await self.remove_token(name, token.id, now=now)
        await self.revoke_sessions(name, now=now)
        self._tickets = {key: ticket for key, ticket in self._tickets.items() if ticket.user != name}
        del self._users[name]

    async def add_token(self, token: Token, *, most: int) -> None:
        await self.user(token.user)
        self._forget_expired_tokens(token.created_at, token.user)
        if len(await self.tokens(token.user)) >= most:
            raise too_many_tokens(token.user, most)
        self._tokens[token.id] = token

    async def token(self, sha256: str) -> Token:
        for token in self._tokens.values():
            if token.sha256 == sha256:
                return token
        raise NotFound("there is no such token")

    async def tokens(self, user: str | None) -> tuple[Token, ...]:
        found = (token for token in self._tokens.values() if user in (None, token.user))
        return tuple(sorted(found, key=lambda token: (token.created_at, token.id)))

    async def remove_token(self, user: str, token_id: str, *, now: float) -> None:
        token = self._tokens.get(token_id)
        if token is None or token.user != user:
            raise NotFound(f"{user} has no token {token_id}")
        del self._tokens[token_id]
        self._revoke_children({token_id}, now)

    async def add_ticket(self, ticket: Ticket, *, now: float, most: int) -> None:
        await self.user(ticket.user)
        self._tickets = {k: t for k, t in self._tickets.items() if t.user != ticket.user or t.expires_at > now}
        if sum(t.user == ticket.user for t in self._tickets.values()) >= most:
            raise too_many_tickets(ticket.user, most)
        self._tickets[ticket.sha256] = ticket

    async def take_ticket(self, sha256: str) -> Ticket:
        ticket = self._tickets.pop(sha256, None)
        if ticket is None:
            raise NotFound("there is no such ticket")
        return ticket

    async def add_session(self, session: Session, *, most: int) -> None:
        await self.user(session.user)
        others = [other for other in self._sessions.values() if other.user == session.user]
        if sum(other.expires_at > session.created_at for other in others) >= most:
            raise too_many_sessions(session.user, most)
        if session.parent and session.parent not in self._tokens:
            parent = self._sessions.get(session.parent)
            if parent is None or parent.revoked_at:
                raise NotFound("what asked for the session has ended")
        self._sessions[session.id] = session

    async def session(self, session_id: str) -> Session:
        if session_id not in self._sessions:
            raise NotFound("there is no such session")
        return self._sessions[session_id]

    async def revoke_session(self, session_id: str, *, now: float) -> None:
        self._revoke(await self.session(session_id), now)
        self._revoke_children({session_id}, now)

    async def revoke_sessions(self, user: str, *, now: float) -> None:
        for session in [session for session in self._sessions.values() if session.user == user]:
            self._revoke(session, now)

    async def revoked(self, *, now: float) -> tuple[Session, ...]:
        return tuple(s for s in self._sessions.values() if s.revoked_at and s.expires_at > now)

    async def prune(self, *, now: float) -> None:
        self._tickets = {key: ticket for key, ticket in self._tickets.items() if ticket.expires_at > now}
        self._sessions = {key: session for key, session in self._sessions.items() if session.expires_at > now}
        self._forget_expired_tokens(now, None)

    def _forget_expired_tokens(self, now: float, user: str | None) -> None:
        for token in [token for token in self._tokens.values() if user in (None, token.user)]:
            if token.expires_at and token.expires_at <= now:
                del self._tokens[token.id]

    def _revoke(self, session: Session, now: float) -> None:
        if not session.revoked_at:
            self._sessions[session.id] = replace(session, revoked_at=now)

    def _revoke_children(self, parents: set[str], now: float) -> None:
        while parents:
            children = [session for session in self._sessions.values() if session.parent in parents]
            for child in children:
                self._revoke(child, now)
            parents = {child.id for child in children}


class MemoryKeys:
    """A `KeyStore` that forgets at the end of the process."""

    def __init__(self) -> None:
        self._keys: tuple[SigningKey, ...] = ()

    def load(self) -> tuple[SigningKey, ...]:
        return self._keys

    def save(self, keys: tuple[SigningKey, ...]) -> None:
        self._keys = keys
