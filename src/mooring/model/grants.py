"""Signed sessions: what a host cookie says, and how it is signed and checked. Lua checks the same format.

    v1.<key id>.<session>.<subject>.<audience>.<expiry>.<signature>

Key id, session: base64url text without dots. Subject: a user name. Audience: the host, with its dots written as `_`
(no host label holds one). Expiry: seconds since the epoch, decimal. Signature: base64url without padding of
HMAC-SHA256 over everything before the last dot. Source of the construction: RFC 2104; nothing is encrypted.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from mooring.errors import Unauthenticated

COOKIE = "mooring"
SECURE_COOKIE = "__Host-mooring"
PROBE_SUBJECT = "mooring:probe"
_PART = re.compile(r"[A-Za-z0-9_:-]{1,253}")
_PARTS = 7


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs sessions. `secret` is 32 random bytes; `not_after` is in seconds since the epoch."""

    id: str
    secret: bytes = field(repr=False)
    not_after: int


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """A bearer token that the gateway accepts: the SHA-256 of it (hex), never the token. `expires` 0 is never."""

    sha256: str
    subject: str
    session: str
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Grants:
    """What the gateway needs to check access without asking: travels in the server's section.

    `revoked` maps a session to the second after which no cookie of it can be valid any more.
    """

    keys: tuple[SigningKey, ...] = ()
    tokens: tuple[TokenGrant, ...] = ()
    revoked: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """Who, for which host, until when (seconds since the epoch), and the session that revocation names."""

    session: str
    subject: str
    audience: str
    expires: int


def sign(claims: Claims, key: SigningKey) -> str:
    """The cookie's value for `claims`."""
    audience = claims.audience.replace(".", "_")
    text = f"v1.{key.id}.{claims.session}.{claims.subject}.{audience}.{claims.expires}"
    return f"{text}.{_mac(text, key)}"


def verify(cookie: str, keys: tuple[SigningKey, ...], *, audience: str, now: float) -> Claims:
    """The claims of a cookie that one of `keys` signed for `audience` and that has not expired.

    Raises:
        Unauthenticated: for anything else; the text does not say which check failed.
    """
    parts = cookie.split(".")
    if len(parts) == _PARTS and parts[0] == "v1" and all(_PART.fullmatch(p) for p in parts):
        for key in keys:
            claims = _verified(cookie, parts, key)
            if claims and claims.audience == audience and claims.expires > now:
                return claims
    raise Unauthenticated("the session is not valid, or not any more: sign in again")


def _verified(cookie: str, parts: list[str], key: SigningKey) -> Claims | None:
    _, key_id, session, subject, audience, expires, mac = parts
    signed = cookie[: -len(mac) - 1]
    if key_id != key.id or not hmac.compare_digest(mac, _mac(signed, key)) or not expires.isdecimal():
        return None
    return Claims(session, subject, audience.replace("_", "."), min(int(expires), key.not_after))


def _mac(text: str, key: SigningKey) -> str:
    digest = hmac.digest(key.secret, text.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
