"""Signing keys and their rotation: several are valid at once, so that no rotation signs anybody out."""

import secrets

from mooring.accounts.ports import KeyStore
from mooring.model.grants import SigningKey

SESSION_S = 7 * 86400
"""A browser stays signed in for a week: longer than a weekend, shorter than a lost laptop goes unnoticed."""
SIGNS_S = 30 * 86400
AHEAD_S = 86400
"""A new key is published for a day before it signs, so that a gateway that was away knows it by then."""


class Keyring:
    """The keys kept in a `KeyStore`. A key signs for 30 days and verifies for a session longer."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._keys = store.load()

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """Every key that may verify, the newest first."""
        return self._keys

    def rotate(self, *, now: float) -> bool:
        """Make the next key if its time has come and forget those that verify nothing; whether anything changed.

        Raises:
            Unavailable: when the keys cannot be kept; then nothing has changed.
        """
        keys = tuple(key for key in self._keys if key.not_after > now)
        if not keys or _signs_until(keys[0]) - AHEAD_S <= now:
            fresh = SigningKey(secrets.token_hex(8), secrets.token_bytes(32), int(now) + SIGNS_S + SESSION_S)
            keys = (fresh, *keys)
        changed = keys != self._keys
        if changed:
            self._store.save(keys)
            self._keys = keys
        return changed

    def signing(self, *, now: float) -> SigningKey:
        """The oldest key that may still sign: the one that every gateway knows."""
        if not self._keys or _signs_until(self._keys[0]) <= now:
            self.rotate(now=now)
        return next(key for key in reversed(self._keys) if _signs_until(key) > now)


def _signs_until(key: SigningKey) -> int:
    return key.not_after - SESSION_S
