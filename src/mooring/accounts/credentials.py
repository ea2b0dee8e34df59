"""What credentials look like: bearer tokens, tickets, and who they make the caller. Pure."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Literal

from mooring.accounts.ports import Role
from mooring.errors import InvalidInput

TOKEN_PREFIX = "mrg_"  # noqa: S105 - the prefix by which scanners know our tokens
_SECRET_BYTES = 32
_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}")
# Visible ASCII without the backslash, which browsers read as a slash; `//` would be another host.
_NEXT = re.compile(r"/(?!/)[!-\[\]-~]{0,2047}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: `id` is that of the token or session, `expires_at` when it ends by itself (0: never)."""

    user: str
    role: Role
    credential: Literal["token", "session"]
    id: str
    expires_at: float

    @property
    def admin(self) -> bool:
        return self.role is Role.admin


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A ticket that became a session: the cookie's value, its life in seconds, and the path to go to."""

    cookie: str
    lasts_s: int
    next: str


def check_next(path: str) -> str:
    """`path` if it leads to the same host, wherever it is put: into a header, a link or a browser's address bar.

    Raises:
        InvalidInput: otherwise.
    """
    if _NEXT.fullmatch(path) is None:
        raise InvalidInput(
            "next must be a path: one / first, then visible ASCII without backslash, at most 2048", field="next"
        )
    return path


def new_token() -> str:
    """A random bearer token: 256 bits behind a prefix."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def new_ticket() -> str:
    """The random secret of a ticket."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def is_token(text: str) -> bool:
    """Whether `text` has the form of a bearer token."""
    return _TOKEN.fullmatch(text) is not None


def digest(secret: str) -> str:
    """The SHA-256 (hex) by which stores and gateways know a token or a ticket."""
    return hashlib.sha256(secret.encode()).hexdigest()
