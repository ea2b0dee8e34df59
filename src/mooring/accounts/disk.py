"""Secrets on disk, each in a file of mode 0600: signing keys, the gateway's credential, the administrator's token."""

import base64
import binascii
import json
import os
import secrets
from pathlib import Path

from mooring.errors import Misconfigured, Unavailable
from mooring.model.grants import SigningKey

SIGNING_KEYS = "signing.json"
GATEWAY_TOKEN = "gateway-token"  # noqa: S105 - a file's name
SECRET_BYTES = 32
_OTHERS = 0o077


def read_secret(path: Path) -> str | None:
    """What the file holds, None when there is none.

    Raises:
        Misconfigured: when others may read it, or we may not.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise Misconfigured(f"{path} can be read by others: type chmod 600 {path}")
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error


def write_secret(path: Path, text: str) -> None:
    """Put `text` into the file; a crash leaves the old file or the new one, never a part.

    Raises:
        Unavailable: when the disk is full or not writable.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write(fresh, text)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error}") from error


def gateway_token(keys: Path) -> str:
    """The credential that gateways show to the server; made at the first start."""
    path = keys / GATEWAY_TOKEN
    token = read_secret(path)
    if not token:
        token = secrets.token_urlsafe(SECRET_BYTES)
        write_secret(path, token + "\n")
    return token


class KeyFile:
    """A `KeyStore`: one JSON file below the keys folder."""

    def __init__(self, keys: Path) -> None:
        self._path = keys / SIGNING_KEYS

    def load(self) -> tuple[SigningKey, ...]:
        text = read_secret(self._path)
        if text is None:
            return ()
        try:
            return tuple(
                SigningKey(str(key["id"]), base64.b64decode(key["secret"], validate=True), int(key["not_after"]))
                for key in json.loads(text)
            )
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise Misconfigured(f"{self._path} is damaged: remove it, and everybody signs in again") from error

    def save(self, keys: tuple[SigningKey, ...]) -> None:
        document = [
            {"id": key.id, "secret": base64.b64encode(key.secret).decode(), "not_after": key.not_after} for key in keys
        ]
        write_secret(self._path, json.dumps(document, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Without it the rename itself can be lost with the power, and every browser would be signed out.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
