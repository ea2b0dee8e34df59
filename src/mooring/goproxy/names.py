"""Module paths and versions, their escaped form, and what a request's path asks for. Pure.

The store's only way to a file name, so that nothing outside it can ever be named.

The rules: https://go.dev/ref/mod#goproxy-protocol and #module-path. A malformed name is NotFound, since the go command
goes on to the next proxy then: it asks for many paths that nobody ever published.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from mooring.errors import NotFound
from mooring.goproxy import semver

LONGEST_ELEMENT = 200
_LONGEST_PATH = 1024
_ELEMENT = re.compile(r"[A-Za-z0-9_~-](?:[A-Za-z0-9._~-]*[A-Za-z0-9_~-])?")
_FIRST = re.compile(r"(?!-)[a-z0-9.-]*\.[a-z0-9.-]*")
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\..*)?")
_SHORT_NAME = re.compile(r"[^.]*~[0-9]+(?:\..*)?")
_MAJOR = re.compile(r"(?P<prefix>.*)/v(?P<number>[0-9.]+)")
_GOPKG = re.compile(r"gopkg\.in/.*\.v(?:0|[1-9][0-9]*)(?:-unstable)?")
_REVISION = re.compile(
    r"[A-Za-z0-9#$%&()+,=@\[\]^_{}~-](?:[A-Za-z0-9#$%&()+,.=@\[\]^_{}~ -]*[A-Za-z0-9#$%&()+,=@\[\]^_{}~-])?"
)
_QUERIES = frozenset({"latest", "upgrade", "patch"})
_SUMDB_NAME = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~-]+)*")
_UPPER = re.compile(r"[A-Z]")
_ESCAPE = re.compile(r"!([a-z])")


class Kind(StrEnum):
    """What is asked for, as the last part of its name."""

    list = "list"
    latest = "latest"
    info = "info"
    mod = "mod"
    zip = "zip"


@dataclass(frozen=True, slots=True)
class Ask:
    """One file of a module. `version` is unescaped, empty for `list` and `latest`; `name` is its escaped name."""

    module: str
    version: str
    kind: Kind
    name: str

    @property
    def immutable(self) -> bool:
        """Whether its content is decided for ever once it exists."""
        return self.version != "" and semver.is_canonical(self.version)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.module}@{self.version or self.kind}"

    def sibling(self, kind: Kind) -> "Ask":
        """Another file of the same version."""
        return ask(self.module, self.version, kind)


@dataclass(frozen=True, slots=True)
class SumdbAsk:
    """A file of a checksum database: `rest` is `supported`, `latest`, `lookup/…` or `tile/…`."""

    database: str
    rest: str

    @property
    def label(self) -> str:
        return f"{self.database}/{self.rest}"


def ask(module: str, version: str, kind: Kind) -> Ask:
    """The ask for a module's file.

    Raises:
        NotFound: the path or the version is malformed.
    """
    check_module(module)
    if kind is Kind.latest:
        return Ask(module, "", kind, f"{escape(module)}/@latest")
    if kind is Kind.list:
        return Ask(module, "", kind, f"{escape(module)}/@v/list")
    _check_version(module, version, kind)
    return Ask(module, version, kind, f"{escape(module)}/@v/{escape(version)}.{kind}")


def parse(raw_path: bytes) -> Ask | SumdbAsk:
    """What the path of a request (as sent, without the query, beginning with `/`) asks for.

    Raises:
        NotFound: it is not one of the protocol's; says why.
    """
    path = _decode(raw_path)
    if path.startswith("sumdb/"):
        return _parse_sumdb(path.removeprefix("sumdb/"))
    return _parse_module(path)


@lru_cache(maxsize=8192)
def _parse_module(path: str) -> Ask:
    if path.endswith("/@latest"):
        return ask(unescape(path.removesuffix("/@latest")), "", Kind.latest)
    module, separator, name = path.partition("/@v/")
    if not separator:
        raise NotFound("not a path of the module proxy protocol: expected MODULE/@latest or MODULE/@v/…")
    if name == "list":
        return ask(unescape(module), "", Kind.list)
    version, _, suffix = name.rpartition(".")
    if suffix not in ("info", "mod", "zip"):
        raise NotFound("not a path of the module proxy protocol: expected @v/list or @v/VERSION.info, .mod or .zip")
    return ask(unescape(module), unescape(version), Kind(suffix))


def _parse_sumdb(path: str) -> SumdbAsk:
    for part in ("/supported", "/latest"):
        if path.endswith(part):
            return SumdbAsk(_sumdb_name(path.removesuffix(part)), part[1:])
    for part in ("/lookup/", "/tile/"):
        name, separator, rest = path.partition(part)
        if separator:
            return SumdbAsk(_sumdb_name(name), part[1:] + rest)
    raise NotFound("not a path of a checksum database: expected supported, latest, lookup/… or tile/…")


def parse_lookup(path: str) -> tuple[str, str]:
    """Module and version of `lookup/MODULE@VERSION`, both valid.

    Raises:
        NotFound: they are not.
    """
    module, _, version = path.removeprefix("lookup/").partition("@")
    wanted = ask(unescape(module), unescape(version), Kind.zip)
    return wanted.module, wanted.version


def _sumdb_name(name: str) -> str:
    if _SUMDB_NAME.fullmatch(name) is None or ".." in name:
        raise NotFound("the checksum database's name must be a host with an optional path")
    return name


def _decode(raw_path: bytes) -> str:
    if not raw_path.startswith(b"/") or len(raw_path) > 3 * _LONGEST_PATH:
        raise NotFound(f"a path must begin with / and have at most {_LONGEST_PATH} characters")
    if b"%" not in raw_path and b"\0" not in raw_path and len(raw_path) <= _LONGEST_PATH and raw_path.isascii():
        return raw_path[1:].decode("ascii")
    # An encoded slash would let `a%2Fb` and `a/b` be two names of one file for whoever checks access before us.
    if b"%2f" in raw_path.lower():
        raise NotFound("a path must not contain an encoded slash")
    try:
        text = unquote_to_bytes(raw_path[1:]).decode("ascii")
    except UnicodeDecodeError:
        raise NotFound("a module path has ASCII characters only") from None
    if "\0" in text or len(text) > _LONGEST_PATH:
        raise NotFound(f"a path has at most {_LONGEST_PATH} characters, none of them NUL")
    return text


def escape(text: str) -> str:
    """Upper-case letters as `!` and the lower-case letter: file systems may not tell the cases apart."""
    return _UPPER.sub(lambda match: "!" + match[0].lower(), text)


def unescape(text: str) -> str:
    """The opposite of `escape`.

    Raises:
        NotFound: an upper-case letter, or a `!` without a lower-case letter after it.
    """
    plain = _ESCAPE.sub(lambda match: match[1].upper(), text)
    if _UPPER.search(text) is not None or "!" in plain:
        raise NotFound(f"malformed escape in {text!r}: an upper-case letter is written as ! and its lower-case letter")
    return plain


@lru_cache(maxsize=8192)
def check_module(path: str) -> None:
    """Raise NotFound unless `path` is a valid module path."""
    check_elements(path)
    _check_path_major(path)


def check_elements(path: str) -> None:
    """Raise NotFound unless a valid module path begins with `path`, which may itself be none, as `gopkg.in/team`."""
    elements = path.split("/")
    if len(path) > _LONGEST_PATH or _FIRST.fullmatch(elements[0]) is None:
        raise NotFound(f"malformed module path {path!r}: it must begin with a host name that has a dot")
    for element in elements:
        # Two dots in a row are legal inside an element of Go's grammar; a lone `..` ends with a dot and is not.
        if len(element) > LONGEST_ELEMENT or _ELEMENT.fullmatch(element) is None:
            raise NotFound(f"malformed module path {path!r}: {element[:40]!r} is no path element")
        if _RESERVED.fullmatch(element) or _SHORT_NAME.fullmatch(element):
            raise NotFound(f"malformed module path {path!r}: {element!r} is reserved on some systems")


def _check_path_major(path: str) -> None:
    if path.startswith("gopkg.in/"):
        if _GOPKG.fullmatch(path) is None:
            raise NotFound(f"malformed module path {path!r}: it must end in .vN")
    elif (match := _MAJOR.fullmatch(path)) and (
        match["number"] == "1" or not re.fullmatch(r"[1-9][0-9]*", match["number"])
    ):
        raise NotFound(f"malformed module path {path!r}: a path ends in /v2 or higher, or in no version")


def path_major(module: str) -> str:
    """`v2` of `example.com/x/v2` and of `gopkg.in/x.v2`; empty when the path has none."""
    if module.startswith("gopkg.in/"):
        return "v" + module.rpartition(".v")[2].removesuffix("-unstable")
    match = _MAJOR.fullmatch(module)
    return f"v{match['number']}" if match else ""


def _check_version(module: str, version: str, kind: Kind) -> None:
    if len(version) > LONGEST_ELEMENT or _REVISION.fullmatch(version) is None:
        raise NotFound(f"malformed version {version[:80]!r} of {module}")
    if semver.is_canonical(version):
        _check_major(module, version)
    elif kind is not Kind.info:
        raise NotFound(f"{module}@{version}: .{kind} exists for canonical versions (vX.Y.Z) only")
    elif version in _QUERIES:
        raise NotFound(f"{version!r} is never the name of a version in the module proxy protocol")


def _check_major(module: str, version: str) -> None:
    wanted, found = path_major(module), semver.major(version)
    if not wanted:
        fits = found in ("v0", "v1") or version.endswith("+incompatible")
    else:
        # gopkg.in/check.v1 and its like have pseudo-versions that begin with v0.0.0-, by an old fault of the tools.
        fits = found == wanted or (wanted == "v1" and version.startswith("v0.0.0-"))
    if not fits:
        raise NotFound(f"{module}@{version}: the version should be {wanted or 'v0 or v1'}, not {found}")


def matches_any(patterns: tuple[str, ...], module: str) -> bool:
    """Whether a pattern of GOPRIVATE's kind (globs, each for as many leading elements as it has) covers `module`."""
    elements = module.split("/")
    for pattern in patterns:
        parts = pattern.rstrip("/").split("/")
        if len(parts) <= len(elements) and all(fnmatchcase(e, p) for e, p in zip(elements, parts, strict=False)):
            return True
    return False
