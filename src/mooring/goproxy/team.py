"""What a team wants of the module proxy inside `mooring up`: the file `goproxy.toml` below MOORING_HOME.

Paths in it are relative to its folder. What is absent is as the go command of this machine has it.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from mooring.errors import InvalidInput
from mooring.goproxy import chain
from mooring.goproxy.config import DEFAULT_NOTARY, Config, size
from mooring.goproxy.gocommand import Credentials, Limits
from mooring.goproxy.s3 import Bucket
from mooring.model.names import check_owner
from mooring.model.routes import Document
from mooring.model.toml import BadToml, Mistake, mistakes_of
from mooring.model.toml import read as read_toml
from mooring.settings import Home

_MAX_BYTES = 256 * 1024
_PATTERN = re.compile(r"[^\s,]+")
ANYBODY = "*"


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise ValueError("must be a pattern of module paths as in GOPRIVATE, one an entry: git.example.com/team")
    return text


def _user(text: str) -> str:
    try:
        return text if text == ANYBODY else check_owner(text)
    except InvalidInput as error:
        raise ValueError(f"must be a user's name, or * for everybody: {error.detail}") from error


def _size(text: str) -> str:
    try:
        size(text)
    except InvalidInput as error:
        raise ValueError(error.detail) from error
    return text


def _file(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be the path of a file")
    return path


def _upstreams(text: str) -> str:
    try:
        chain.parse(text)
    except InvalidInput as error:
        raise ValueError(error.detail) from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
User = Annotated[str, AfterValidator(_user)]
File = Annotated[Path, AfterValidator(_file)]
Size = Annotated[str, AfterValidator(_size)]


class Allowed(Document):
    """These users' workspaces may have the private modules of these patterns."""

    users: tuple[User, ...]
    modules: tuple[Pattern, ...]


class Files(Document):
    """How private repositories are reached; see `gocommand.Credentials`."""

    netrc: File | None = None
    gitconfig: File | None = None
    ssh_key: File | None = None
    known_hosts: File | None = None
    certificates: File | None = None


class Storage(Document):
    """See `s3.Bucket`."""

    url: str
    credentials: File
    region: str = "us-east-1"


class Team(Document):
    """The file. `allow` says who may have which private modules: what it does not name is for nobody."""

    enabled: bool = True
    upstream: Annotated[str, AfterValidator(_upstreams)] | None = None
    sumdb: str | None = None
    nosumdb: tuple[Pattern, ...] = ()
    private: tuple[Pattern, ...] = ()
    notary: str = Field(default=DEFAULT_NOTARY, pattern=r"^[A-Za-z0-9.\-]+$")
    filter: File | None = None
    max_size: Size | None = None
    max_clones: Size | None = None
    credentials: Files = Files()
    s3: Storage | None = None
    allow: tuple[Allowed, ...] = ()

    def allowed(self, user: str) -> tuple[str, ...]:
        """The patterns of the private modules that the workspaces of `user` may have."""
        found = (rule.modules for rule in self.allow if user in rule.users or ANYBODY in rule.users)
        return tuple(dict.fromkeys(pattern for patterns in found for pattern in patterns))

    def config(self, home: Home, go: Path) -> Config:
        """The settings of the proxy that serves `home`; `go` is the go command."""
        folder = home.modules_settings.parent
        files = {name: path and folder / path for name, path in self.credentials}
        return Config(
            root=home.modules,
            s3=Bucket(self.s3.url, folder / self.s3.credentials, self.s3.region) if self.s3 else None,
            upstream=self.upstream,
            sumdb=self.sumdb,
            nosumdb=self.nosumdb,
            private=self.private,
            credentials=Credentials(**files),
            limits=Limits(clones_bytes=size(self.max_clones)) if self.max_clones else Limits(),
            notary=self.notary,
            go=go,
            filter=self.filter and folder / self.filter,
            tokens=home.modules_tokens,
            max_bytes=size(self.max_size) if self.max_size else None,
        )


def read(file: Path) -> Team:
    """The team's wishes; those of a file that is not there are the defaults.

    Raises:
        BadToml: naming file, line and key, and what is allowed.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise BadToml([Mistake(file.name, 1, "", f"must have at most {_MAX_BYTES} bytes")])
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Team()
    except UnicodeDecodeError as error:
        raise BadToml([Mistake(file.name, 1, "", "must be UTF-8")]) from error
    except OSError as error:
        raise BadToml([Mistake(file.name, 1, "", error.strerror or str(error))]) from error
    document = read_toml(text, file.name)
    try:
        return Team.model_validate(document)
    except ValidationError as error:
        raise BadToml(mistakes_of(text, file.name, error)) from error
