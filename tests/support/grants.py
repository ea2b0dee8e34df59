"""Credentials of the tests: one signing key, one bearer token."""

import hashlib
import time

from mooring.model.grants import Claims, Grants, SigningKey, TokenGrant, sign

KEY = SigningKey("k1", b"0123456789abcdef0123456789abcdef", 2**31)
TOKEN = "token-of-ann"
GRANTS = Grants(keys=(KEY,), tokens=(TokenGrant(hashlib.sha256(TOKEN.encode()).hexdigest(), "ann", "session-t"),))
# Those that a test is parametrized with are made before the first test of all runs: they must hold until it does, or
# they are refused for their end alone.
DAY_S = 86_400
PROBE = "token-of-the-probe"
PROBE_GRANT = TokenGrant(hashlib.sha256(PROBE.encode()).hexdigest(), "mooring:probe", "probe")


def cookie(
    host: str = "a.test", subject: str = "ann", *, key: SigningKey = KEY, seconds: float = DAY_S, session: str = "s1"
) -> str:
    """A signed session for that host, as a Cookie header's value."""
    name = "__Host-mooring" if host.endswith("localhost") else "mooring"
    return f"{name}={sign(Claims(session, subject, host, int(time.time() + seconds)), key)}"
