"""Who may have what: everybody, or those with a token. Tokens are kept as hashes; a token is shown once, when made.

A token comes as the password of basic authentication (the go command's `.netrc`; over TLS only, it sends none
otherwise), as a bearer token, or as the first segment of the path, `/t-TOKEN/…`, where nothing else can be set.
"""

import base64
import binascii
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mooring.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from mooring.goproxy.names import matches_any
from mooring.goproxy.stamps import Stamp, stamp

SEGMENT = b"/t-"
WORKSPACE = "workspace:"
"""What the names of workspaces' tokens begin with: their lines are made anew whenever workspaces change."""


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
        self._seen: Stamp | None = None
        self._subjects: dict[str, Subject] = {}

    def subject(self, authorization: bytes, segment: str) -> Subject:
        """Who sends these credentials.

        Raises:
            Unauthenticated: nobody whom we know.
            Unavailable: who is known cannot be read.
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
        # One that is gone is forgotten with its stamp: the same file that is moved back is to be read again.
        if (seen := stamp(file)) != self._seen:
            try:
                self._subjects = parse(file.read_text(errors="replace")) if seen else {}
            except OSError as error:
                raise Unavailable(f"the module proxy cannot read its file of tokens: {error.strerror}") from error
            self._seen = seen


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
        InvalidInput: the name or a pattern has spaces or commas, or the name begins a comment or is a workspace's.
        Unavailable: the disk takes it not; the file is as it was.
    """
    if not name or any(c.isspace() or c == "," for word in (name, *private) for c in word):
        raise InvalidInput("a name and patterns have neither spaces nor commas", field="name")
    if name.startswith("#"):
        raise InvalidInput("a name that begins with # would be a comment in the file of tokens", field="name")
    if name.startswith(WORKSPACE):
        raise InvalidInput(f"names that begin with {WORKSPACE} are those of workspaces", field="name")
    token = secrets.token_urlsafe(32)
    _change(file, lambda lines: [*lines, line(Subject(name, private), token)])
    return token


def revoke(file: Path, name: str) -> int:
    """Remove every token of `name`; how many there were. Raises Unavailable as `make`."""
    gone: list[str] = []

    def without(lines: list[str]) -> list[str]:
        gone.extend(line for line in lines if line.split()[:1] == [name])
        return [line for line in lines if line not in gone]

    if file.exists():
        _change(file, without)
    return len(gone)


def replace_workspaces(file: Path, subjects: Mapping[str, Subject]) -> None:
    """Make the workspaces' tokens in `file` exactly these, by token; those of people stay.

    Raises:
        Unavailable: the disk takes it not; the file is as it was.
    """
    own = [line(subject, token) for token, subject in subjects.items()]
    _change(file, lambda lines: [*(text for text in lines if not text.startswith(WORKSPACE)), *own])


def line(subject: Subject, token: str) -> str:
    """How the file says that `token` is the one of `subject`."""
    return f"{subject.name} {_hash(token)} {','.join(subject.private)}".rstrip()


def _change(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Replace the lines of the file: a reader sees the old ones or the new ones, and no change gets lost."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            try:
                before, owner = file.read_text(errors="replace").splitlines(), file.stat()
            except FileNotFoundError:
                before, owner = None, file.parent.stat()
            after = change(before or [])
            if after != before:
                _write(file, after, owner)
    except OSError as error:
        raise Unavailable(f"the tokens cannot be saved: {error.strerror}") from error


def _write(file: Path, lines: list[str], owner: os.stat_result) -> None:
    # Under the lock one name will do. What a killed process left may be root's, which nobody else could write over.
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as new:
        new.writelines(f"{text}\n" for text in lines)
        new.flush()
        if os.geteuid() == 0:
            # Root's own file could not be read by the user that serves.
            os.fchown(fd, owner.st_uid, owner.st_gid)
        os.fsync(fd)
    temporary.replace(file)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    # The folder itself: a lock file of root's could not be opened by the user that serves.
    fd = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def segment(path: bytes) -> tuple[str, bytes]:
    """The token in a path's first segment, and the rest of the path; no token where there is none."""
    if not path.startswith(SEGMENT):
        return "", path
    token, slash, rest = path.removeprefix(SEGMENT).partition(b"/")
    if b"." in token:
        # No token has a dot, and every host that a module's path begins with has one.
        return "", path
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
