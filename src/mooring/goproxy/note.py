"""Signed notes (https://pkg.go.dev/golang.org/x/mod/sumdb/note and its format description). Pure.

A note is text that ends in a newline, an empty line, and one line a signature:
`— NAME BASE64(4 bytes of key hash, 64 bytes of Ed25519 signature of the text)`.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mooring.errors import InvalidInput
from mooring.goproxy.faults import BadNote

_ED25519 = b"\x01"
_KEY_BYTES = 32
_MAX_NOTE = 1_000_000
_MAX_SIGNATURES = 100
_NAME = re.compile(r"[^\s+]+")
_HASH = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key: `NAME+HASH+KEY` as GOSUMDB has it."""

    name: str
    key: bytes

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:4]

    @property
    def text(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(_ED25519 + self.key).decode()}"

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key: `PRIVATE+KEY+NAME+HASH+SEED`, a secret."""

    name: str
    seed: bytes

    def __repr__(self) -> str:
        """The name only: a log line or a trace must not carry the key."""
        return f"Signer({self.name!r})"

    @classmethod
    def make(cls, name: str) -> "Signer":
        """A new key."""
        private = Ed25519PrivateKey.generate()
        return cls(name, private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

    @property
    def verifier(self) -> Verifier:
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return Verifier(self.name, public.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def text(self) -> str:
        key = base64.b64encode(_ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.hash.hex()}+{key}"

    def sign(self, text: str) -> bytes:
        """The signed note of `text`, which ends in a newline."""
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        line = base64.b64encode(self.verifier.hash + signature).decode()
        return f"{text}\n— {self.name} {line}\n".encode()


def parse_verifier(text: str) -> Verifier:
    """The key of `NAME+HASH+KEY`.

    Raises:
        InvalidInput: it is malformed, or its hash is not that of its key.
    """
    name, _, rest = text.partition("+")
    digest, _, encoded = rest.partition("+")
    verifier = Verifier(name, _key_bytes(name, encoded))
    if _HASH.fullmatch(digest) is None or verifier.hash.hex() != digest:
        raise InvalidInput(f"the hash in the key of {name!r} is not that of the key", field="GOSUMDB")
    return verifier


def parse_signer(text: str) -> Signer:
    """The key of `PRIVATE+KEY+NAME+HASH+SEED`.

    Raises:
        InvalidInput: it is malformed.
    """
    head, rest = text[: len("PRIVATE+KEY+")], text[len("PRIVATE+KEY+") :]
    name, _, rest = rest.partition("+")
    digest, _, encoded = rest.partition("+")
    signer = Signer(name, _key_bytes(name, encoded))
    if head != "PRIVATE+KEY+" or signer.verifier.hash.hex() != digest:
        raise InvalidInput("the notary's key file is damaged", field="key")
    return signer


def _key_bytes(name: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if _NAME.fullmatch(name) is None or key[:1] != _ED25519 or len(key) != 1 + _KEY_BYTES:
        raise InvalidInput("a key must be NAME+HASH+KEY with an Ed25519 key", field="GOSUMDB")
    return key[1:]


def check(message: bytes, verifier: Verifier) -> str:
    """The text of a note that `verifier` signed.

    Raises:
        BadNote: it is malformed, its signature is wrong or missing.
    """
    try:
        text, separator, signatures = message.decode().rpartition("\n\n")
    except UnicodeDecodeError as error:
        raise BadNote("the note is not UTF-8") from error
    lines = signatures.split("\n")
    if not separator or len(message) > _MAX_NOTE or lines.pop() != "" or not 0 < len(lines) <= _MAX_SIGNATURES:
        raise BadNote("the note is malformed")
    text += "\n"
    if not any(_signed(line, text, verifier) for line in lines):
        raise BadNote(f"the note is not signed by {verifier.name}")
    return text


def _signed(line: str, text: str, verifier: Verifier) -> bool:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadNote("a signature line is malformed") from error
    if dash != "—" or not name:
        raise BadNote("a signature line is malformed")
    if name != verifier.name or raw[:4] != verifier.hash:
        return False
    if not verifier.signed(text.encode(), raw[4:]):
        raise BadNote(f"the note's signature by {name} is wrong")
    return True
