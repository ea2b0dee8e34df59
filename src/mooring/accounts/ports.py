"""What accounts need of the world. Adapters: `memory.py`, `sql.py` (stores), `disk.py` (keys).

Every method of a store may raise `Unavailable` when the database is gone. Secrets never reach a store: tokens and
tickets are known to it by their SHA-256 (they are random, so nothing is gained by a slow hash).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mooring.errors import LimitExceeded
from mooring.model.grants import SigningKey


class Role(StrEnum):
    """An admin sees every object and manages users and sections; nobody enters another's workspace."""

    admin = "admin"
    member = "member"


@dataclass(frozen=True, slots=True)
class User:
    """A person. `created_at` is in seconds since the epoch."""

    name: str
    role: Role
    created_at: float


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token: `sha256` (hex) of it, what its owner calls it, and until when it is valid (0: always)."""

    id: str
    user: str
    label: str
    sha256: str
    created_at: float
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session at one host (`audience`), until `expires_at`.

    `parent` is the session or token that asked for it: its end is this one's end too. `revoked_at` 0: it is valid.
    """

    id: str
    user: str
    audience: str
    parent: str
    created_at: float
    expires_at: float
    revoked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A one-time link to `next` on `host` for `user`: the SHA-256 of its secret, never the secret.

    The session made from it has `parent` and ends at `session_until` at the latest, since what asked for it does.
    """

    sha256: str
    user: str
    host: str
    next: str
    parent: str
    expires_at: float
    session_until: float


def too_many_tickets(user: str, most: int) -> LimitExceeded:
    """The error of one link too many."""
    return LimitExceeded(f"{user} has {most} unused sign-in links: use one, or wait a minute until they expire")


def too_many_tokens(user: str, most: int) -> LimitExceeded:
    """The error of one token too many."""
    return LimitExceeded(f"{user} has {most} tokens: revoke one first")


def too_many_sessions(user: str, most: int) -> LimitExceeded:
    """The error of one session too many."""
    return LimitExceeded(f"{user} has signed in {most} times: wait an hour, or use a token for what a program does")


class Users(Protocol):
    """The people."""

    async def add_user(self, user: User) -> None:
        """Insert it. Raises `Conflict` when the name is in use."""

    async def user(self, name: str) -> User:
        """The user of that name. Raises `NotFound`."""

    async def users(self, *, after: str, limit: int) -> tuple[User, ...]:
        """Users whose name is above `after`, in the order of names."""

    async def remove_user(self, name: str, *, now: float) -> None:
        """Forget the user, its tokens and tickets, and revoke its sessions, all at once. Raises `NotFound`."""


class Tokens(Protocol):
    """Bearer tokens. Only those of existing users are kept."""

    async def add_token(self, token: Token, *, most: int) -> None:
        """Insert it, and forget those of its user that have expired by the time at which it was made.

        Raises:
            NotFound: its user does not exist.
            LimitExceeded: the user has `most` others, also when many are made at once.
        """

    async def token(self, sha256: str) -> Token:
        """The token of that hash. Raises `NotFound`."""

    async def tokens(self, user: str | None) -> tuple[Token, ...]:
        """The tokens of a user, of everybody when None, oldest first."""

    async def remove_token(self, user: str, token_id: str, *, now: float) -> None:
        """Forget it and revoke the sessions that came from it. Raises `NotFound`.

        Nothing of it is kept: gateways refuse a token that they are not told of, and cut what it opened.
        """


class Sessions(Protocol):
    """Browser sessions, and the tickets that they come from."""

    async def add_ticket(self, ticket: Ticket, *, now: float, most: int) -> None:
        """Insert it, and forget those of its user that have expired by `now`.

        Raises:
            NotFound: its user does not exist.
            LimitExceeded: the user has `most` others, also when many are made at once.
        """

    async def take_ticket(self, sha256: str) -> Ticket:
        """Remove it and return it: of any number of takers at once one gets it. Raises `NotFound`."""

    async def add_session(self, session: Session, *, most: int) -> None:
        """Insert it.

        Raises:
            NotFound: its user does not exist, or its parent is gone or revoked.
            LimitExceeded: the user has `most` others that have not expired by the time at which it was made, revoked
                ones included, also when many are made at once.
        """

    async def session(self, session_id: str) -> Session:
        """The session. Raises `NotFound`."""

    async def revoke_session(self, session_id: str, *, now: float) -> None:
        """End it and those that came from it. Raises `NotFound`."""

    async def revoke_sessions(self, user: str, *, now: float) -> None:
        """End every session of a user."""

    async def revoked(self, *, now: float) -> tuple[Session, ...]:
        """Revoked sessions whose cookies have not expired by themselves."""

    async def prune(self, *, now: float) -> None:
        """Forget what has expired: tickets, sessions, tokens."""


class AccountStore(Users, Tokens, Sessions, Protocol):
    """All of it in one place, so that removing a user is one transaction."""


class KeyStore(Protocol):
    """Where signing keys are kept. Blocking: called at start and once in weeks."""

    def load(self) -> tuple[SigningKey, ...]:
        """Every key kept, the newest first; none at the first start. Raises `Misconfigured` when unreadable."""

    def save(self, keys: tuple[SigningKey, ...]) -> None:
        """Replace them all, so that a crash leaves the old or the new. Raises `Unavailable`."""


class OwnedWorkspaces(Protocol):
    """What accounts ask of workspaces, wired in the composition root."""

    async def count(self, owner: str) -> int:
        """How many workspaces of the owner still exist."""
