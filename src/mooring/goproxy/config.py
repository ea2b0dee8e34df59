"""Settings of a module proxy."""

from dataclasses import dataclass, field
from pathlib import Path

from mooring.errors import InvalidInput
from mooring.goproxy.gocommand import Credentials, Limits
from mooring.goproxy.s3 import Bucket
from mooring.goproxy.service import Lifetimes

DEFAULT_NOTARY = "sum.mooring.internal"
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that `mooring goproxy` was told."""

    root: Path
    """The store; below it `cache/download` has the layout of GOMODCACHE."""
    s3: Bucket | None = None
    """Where modules are kept instead of `cache/download`; the notary and what is on its way stay below `root`."""
    upstream: str | None = None
    """A GOPROXY list; None: what `go env GOPROXY` says here. `direct` in it counts for private modules only, so that
    a module which the upstream does not know costs no attempt at somebody's version control."""
    upstream_timeout_s: float = 60.0
    """How long an upstream may send nothing. A public proxy may first have to fetch a new version itself."""
    sumdb: str | None = None
    """A GOSUMDB value; None: what `go env GOSUMDB` says here."""
    nosumdb: tuple[str, ...] = ()
    """Patterns of public modules that the checksum database is not asked about; the notary vouches for them."""
    private: tuple[str, ...] = ()
    """Patterns of modules that are fetched from version control and never named to an upstream."""
    credentials: Credentials = field(default_factory=Credentials)
    """How private repositories are reached."""
    limits: Limits = field(default_factory=Limits)
    """Of one run of the go command."""
    notary: str = DEFAULT_NOTARY
    """The name of our own checksum database. Every GOSUMDB names it: choose it before the first start."""
    go: Path = Path("go")
    """The go command."""
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    filter: Path | None = None
    """The file of rules about which modules may be used."""
    tokens: Path | None = None
    """The file of tokens; None: open to everybody who reaches the port."""
    tls_certificate: Path | None = None
    """PEM chain; with it the stand-alone server speaks https."""
    tls_key: Path | None = None
    max_bytes: int | None = None
    """What the store may hold; None: for ever. Only what an upstream still offers is removed."""


def size(text: str) -> int:
    """Bytes of `200G`; K, M, G and T are powers of 1024.

    Raises:
        InvalidInput: it is no such number.
    """
    number, unit = (text[:-1], _UNITS.get(text[-1:].upper())) if text[-1:].isalpha() else (text, 1)
    if unit is None or not number.isdecimal():
        raise InvalidInput(f"{text!r} must be a number of bytes, with K, M, G or T after it: 200G", field="size")
    return int(number) * unit
