"""Who may have what: everybody, or those with a token. Tokens are kept as hashes; a token is shown once, when made.

A token comes as the password of basic authentication (the go command's `.netrc`; over TLS only, it sends none
otherwise), as a bearer token, or as the first segment of the path, `/t-TOKEN/…`, where nothing else can be set.
"""

import base64
import binascii
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from mooring.errors import Forbidden, InvalidInput, Unauthenticated
from mooring.goproxy.names import matches_any

SEGMENT = b"/t-"


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody, and the patterns of the private modules that they may have."""

    name: str
    private: tuple[str, ...] = ()

    @property
    def owns_all(self) -> bool:
        """Whether no private module is kept from them."""
        return "*" in self.private

    def owns(self, module: str) -> bool:
        """Whether they may have a private module."""
        return matches_any(self.private, module)

    def check(self, module: str) -> None:
        """Raise Forbidden for a private module that is not theirs.

        Not NotFound: the client would go on and name a private path to the next proxy.
        """
        if not self.owns(module):
            raise Forbidden(f"{module} is private, and {self.name} may not have it")


EVERYBODY = Subject("everybody", ("*",))


class Access:
    """The tokens in `file`: lines of `NAME SHA256 PATTERN,PATTERN…`. None: open to everybody."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._subjects: dict[str, Subject] = {}

    def subject(self, authorization: bytes, segment: str) -> Subject:
        """Who sends these credentials.

        Raises:
            Unauthenticated: nobody whom we know.
        """
        if self._file is None:
            return EVERYBODY
        token = segment or _token(authorization)
        if not token:
            raise Unauthenticated("this module proxy needs a token: see GOAUTH or .netrc, over https")
        self._read(self._file)
        found = self._subjects.get(_hash(token))
        if found is None:
            raise Unauthenticated("the token is not known (any more)")
        return found

    def _read(self, file: Path) -> None:
        try:
            status = os.stat(file)  # noqa: PTH116 - for every request
        except FileNotFoundError:
            self._subjects = {}
            return
        if (status.st_ino, status.st_mtime_ns, status.st_size) == self._seen:
            return
        self._subjects = parse(file.read_text())
        self._seen = (status.st_ino, status.st_mtime_ns, status.st_size)


def parse(text: str) -> dict[str, Subject]:
    """Subjects by the hash of their token; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) in (2, 3) and not line.startswith("#"):
            private = tuple(words[2].split(",")) if len(words) == 3 else ()  # noqa: PLR2004
            found[words[1]] = Subject(words[0], private)
    return found


def make(file: Path, name: str, private: tuple[str, ...]) -> str:
    """A new token for `name`, added to `file`.

    Raises:
        InvalidInput: the name or a pattern has spaces or commas.
    """
    if not name or any(c.isspace() or c == "," for word in (name, *private) for c in word):
        raise InvalidInput("a name and patterns have neither spaces nor commas", field="name")
    token = secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "a") as lines:
        lines.write(f"{name} {_hash(token)} {','.join(private)}\n")
    return token


def revoke(file: Path, name: str) -> int:
    """Remove every token of `name`; how many there were."""
    try:
        lines = file.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    kept = [line for line in lines if line.split()[:1] != [name]]
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.writelines(kept)
    temporary.replace(file)
    return len(lines) - len(kept)


def segment(path: bytes) -> tuple[str, bytes]:
    """The token in a path's first segment, and the rest of the path; no token where there is none."""
    if not path.startswith(SEGMENT):
        return "", path
    token, slash, rest = path.removeprefix(SEGMENT).partition(b"/")
    return token.decode("ascii", errors="replace"), slash + rest


def _hash(token: str) -> str:
    # Tokens are 256 random bits: nothing to guess, so a slow hash would protect nothing.
    return hashlib.sha256(token.encode()).hexdigest()


def _token(authorization: bytes) -> str:
    scheme, _, value = authorization.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
