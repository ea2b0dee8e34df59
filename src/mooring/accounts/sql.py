"""Accounts in the database.

On PostgreSQL writers run side by side, so whoever adds something below a user, a token or a session locks that row
first: what is being removed at the same moment must not get children that nobody would revoke.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import ColumnElement, Row, Update, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from mooring.accounts.ports import (
    Role,
    Session,
    Ticket,
    Token,
    User,
    too_many_sessions,
    too_many_tickets,
    too_many_tokens,
)
from mooring.accounts.tables import sessions, tickets, tokens, users
from mooring.errors import Conflict, NotFound
from mooring.store.changes import note
from mooring.store.database import Database

TOPIC = "accounts"
"""What the gateways of every server must hear of: tokens, and the ends of sessions."""


class SqlAccounts:
    """An `AccountStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_user(self, user: User) -> None:
        values = {"name": user.name, "role": user.role.value, "created_at": user.created_at}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(users).values(**values))
        except IntegrityError as error:
            raise Conflict(f"there is a user {user.name} already", field="name") from error

    async def user(self, name: str) -> User:
        async with self._database.read() as connection:
            row = (await connection.execute(select(users).where(users.c.name == name))).first()
        if row is None:
            raise NotFound(f"there is no user {name}")
        return _user(row)

    async def users(self, *, after: str, limit: int) -> tuple[User, ...]:
        wanted = select(users).where(users.c.name > after).order_by(users.c.name).limit(limit)
        async with self._database.read() as connection:
            return tuple(map(_user, await connection.execute(wanted)))

    async def remove_user(self, name: str, *, now: float) -> None:
        async with self._told() as connection:
            await _lock_user(connection, name)
            await connection.execute(delete(tokens).where(tokens.c.owner == name))
            await connection.execute(_revoke().where(sessions.c.owner == name).values(revoked_at=now))
            await connection.execute(delete(tickets).where(tickets.c.owner == name))
            await connection.execute(delete(users).where(users.c.name == name))

    async def add_token(self, token: Token, *, most: int) -> None:
        values = {
            "id": token.id,
            "owner": token.user,
            "label": token.label,
            "sha256": token.sha256,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
        }
        async with self._told() as connection:
            await _lock_user(connection, token.user)
            mine = tokens.c.owner == token.user
            await connection.execute(delete(tokens).where(mine, _expired(token.created_at)))
            if (await connection.execute(select(func.count()).where(mine))).scalar_one() >= most:
                raise too_many_tokens(token.user, most)
            await connection.execute(insert(tokens).values(**values))

    async def token(self, sha256: str) -> Token:
        async with self._database.read() as connection:
            row = (await connection.execute(select(tokens).where(tokens.c.sha256 == sha256))).first()
        if row is None:
            raise NotFound("there is no such token")
        return _token(row)

    async def tokens(self, user: str | None) -> tuple[Token, ...]:
        wanted = select(tokens).order_by(tokens.c.created_at, tokens.c.id)
        if user is not None:
            wanted = wanted.where(tokens.c.owner == user)
        async with self._database.read() as connection:
            return tuple(map(_token, await connection.execute(wanted)))

    async def remove_token(self, user: str, token_id: str, *, now: float) -> None:
        mine = (tokens.c.id == token_id) & (tokens.c.owner == user)
        async with self._told() as connection:
            if (await connection.execute(delete(tokens).where(mine))).rowcount == 0:
                raise NotFound(f"{user} has no token {token_id}")
            await _revoke_tree(connection, token_id, now)

    async def add_ticket(self, ticket: Ticket, *, now: float, most: int) -> None:
        values = {
            "sha256": ticket.sha256,
            "owner": ticket.user,
            "host": ticket.host,
            "next": ticket.next,
            "parent": ticket.parent,
            "expires_at": ticket.expires_at,
            "session_until": ticket.session_until,
        }
        async with self._database.write() as connection:
            await _lock_user(connection, ticket.user)
            mine = tickets.c.owner == ticket.user
            await connection.execute(delete(tickets).where(mine, tickets.c.expires_at <= now))
            if (await connection.execute(select(func.count()).where(mine))).scalar_one() >= most:
                raise too_many_tickets(ticket.user, most)
            await connection.execute(insert(tickets).values(**values))

    async def take_ticket(self, sha256: str) -> Ticket:
        taken = delete(tickets).where(tickets.c.sha256 == sha256).returning(tickets)
        async with self._database.write() as connection:
            row = (await connection.execute(taken)).first()
        if row is None:
            raise NotFound("there is no such ticket")
        return Ticket(row.sha256, row.owner, row.host, row.next, row.parent, row.expires_at, row.session_until)

    async def add_session(self, session: Session, *, most: int) -> None:
        values = {
            "id": session.id,
            "owner": session.user,
            "audience": session.audience,
            "parent": session.parent,
            "created_at": session.created_at,
            "expires_at": session.expires_at,
            "revoked_at": session.revoked_at,
        }
        async with self._database.write() as connection:
            await _lock_user(connection, session.user)
            unexpired = (sessions.c.owner == session.user) & (sessions.c.expires_at > session.created_at)
            if (await connection.execute(select(func.count()).where(unexpired))).scalar_one() >= most:
                raise too_many_sessions(session.user, most)
            if session.parent:
                await _lock_parent(connection, session.parent)
            await connection.execute(insert(sessions).values(**values))

    async def session(self, session_id: str) -> Session:
        async with self._database.read() as connection:
            row = (await connection.execute(select(sessions).where(sessions.c.id == session_id))).first()
        if row is None:
            raise NotFound("there is no such session")
        return _session(row)

    async def revoke_session(self, session_id: str, *, now: float) -> None:
        async with self._told() as connection:
            locked = select(sessions.c.id).where(sessions.c.id == session_id).with_for_update()
            if (await connection.execute(locked)).first() is None:
                raise NotFound("there is no such session")
            await _revoke_tree(connection, session_id, now)

    async def revoke_sessions(self, user: str, *, now: float) -> None:
        async with self._told() as connection:
            await connection.execute(_revoke().where(sessions.c.owner == user).values(revoked_at=now))

    async def revoked(self, *, now: float) -> tuple[Session, ...]:
        wanted = select(sessions).where(sessions.c.revoked_at > 0, sessions.c.expires_at > now)
        async with self._database.read() as connection:
            return tuple(map(_session, await connection.execute(wanted)))

    async def prune(self, *, now: float) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(tickets).where(tickets.c.expires_at <= now))
            await connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            await connection.execute(delete(tokens).where(_expired(now)))

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that every server hears of."""
        async with self._database.write() as connection:
            yield connection
            await note(connection, TOPIC)


def _expired(now: float) -> ColumnElement[bool]:
    return and_(tokens.c.expires_at > 0, tokens.c.expires_at <= now)


def _revoke() -> Update:
    return update(sessions).where(sessions.c.revoked_at == 0)


async def _lock_user(connection: AsyncConnection, name: str) -> None:
    # Not shared: of two things of a user that are made at once each would be counted without the other.
    locked = select(users.c.name).where(users.c.name == name).with_for_update()
    if (await connection.execute(locked)).first() is None:
        raise NotFound(f"there is no user {name}")


async def _lock_parent(connection: AsyncConnection, parent: str) -> None:
    token = select(tokens.c.id).where(tokens.c.id == parent).with_for_update(read=True)
    session = select(sessions.c.id).where(sessions.c.id == parent, sessions.c.revoked_at == 0)
    for locked in (token, session.with_for_update(read=True)):
        if (await connection.execute(locked)).first() is not None:
            return
    raise NotFound("what asked for the session has ended")


async def _revoke_tree(connection: AsyncConnection, root: str, now: float) -> None:
    tree = select(sessions.c.id).where(sessions.c.parent == root).cte(recursive=True)
    tree = tree.union(select(sessions.c.id).where(sessions.c.parent == tree.c.id))
    below = or_(sessions.c.id == root, sessions.c.id.in_(select(tree.c.id)))
    # Again until nothing is found: a grandchild may have been added while a statement waited for its parent's row.
    found = True
    while found:
        revoked = _revoke().where(below).values(revoked_at=now).returning(sessions.c.id)
        found = bool((await connection.execute(revoked)).all())


def _user(row: Row[tuple[object, ...]]) -> User:
    return User(row.name, Role(row.role), row.created_at)


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(row.id, row.owner, row.label, row.sha256, row.created_at, row.expires_at)


def _session(row: Row[tuple[object, ...]]) -> Session:
    return Session(
        row.id, row.owner, row.audience, row.parent, row.created_at, row.expires_at, revoked_at=row.revoked_at
    )
