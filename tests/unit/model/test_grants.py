"""Signed sessions: what is accepted, and that everything else is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import Unauthenticated
from mooring.model.grants import Claims, SigningKey, sign, verify

KEY = SigningKey("k1", b"0" * 32, not_after=2_000)
CLAIMS = Claims("s1", "anna", "demo--anna.localhost", 1_500)


def test_a_signed_session_is_read_back() -> None:
    """The claims that were signed are the claims that are verified."""
    assert verify(sign(CLAIMS, KEY), (KEY,), audience=CLAIMS.audience, now=1_000) == CLAIMS


def test_a_session_never_outlives_its_key() -> None:
    """A session whose key ends earlier ends with the key."""
    late = Claims("s1", "anna", "a.localhost", 9_000)
    assert verify(sign(late, KEY), (KEY,), audience="a.localhost", now=1_000).expires == KEY.not_after


@pytest.mark.parametrize(
    ("audience", "now", "keys"),
    [
        ("other--anna.localhost", 1_000, (KEY,)),
        (CLAIMS.audience, 1_500, (KEY,)),
        (CLAIMS.audience, 1_000, ()),
        (CLAIMS.audience, 1_000, (SigningKey("k1", b"1" * 32, 2_000),)),
        (CLAIMS.audience, 1_000, (SigningKey("k2", b"0" * 32, 2_000),)),
    ],
    ids=["another host", "expired", "no key", "another secret", "another key id"],
)
def test_a_session_is_refused(audience: str, now: float, keys: tuple[SigningKey, ...]) -> None:
    """A session is valid for one host, until its end, under the key that signed it."""
    with pytest.raises(Unauthenticated):
        verify(sign(CLAIMS, KEY), keys, audience=audience, now=now)


@given(st.integers(0, 200), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_session_with_one_changed_character_is_refused(position: int, character: str) -> None:
    """No part of a cookie can be changed."""
    cookie = sign(CLAIMS, KEY)
    at = position % len(cookie)
    forged = cookie[:at] + character + cookie[at + 1 :]
    if forged != cookie:
        with pytest.raises(Unauthenticated):
            verify(forged, (KEY,), audience=CLAIMS.audience, now=1_000)


@given(st.text(max_size=300))
def test_rubbish_is_refused(text: str) -> None:
    """Whatever a client sends as a cookie, it is either ours or refused."""
    with pytest.raises(Unauthenticated):
        verify(text, (KEY,), audience=CLAIMS.audience, now=1_000)
