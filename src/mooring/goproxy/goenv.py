"""What the go command on this machine is set to: the default upstreams and the checksum database with its key.

No address and no key of a public service is written here: they are the go command's own.
"""

import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mooring.errors import InvalidInput, Misconfigured, Unavailable
from mooring.goproxy import program
from mooring.goproxy.note import Verifier, parse_verifier

_WITHIN_S = 30.0
_NAMES = ("GOPROXY", "GOSUMDB", "GOROOT")


@dataclass(frozen=True, slots=True)
class GoEnvironment:
    """Of `go env`."""

    proxy: str
    sumdb: str
    root: Path


async def read(go: Path, environment: Mapping[str, str]) -> GoEnvironment:
    """What `go env` says.

    Raises:
        Misconfigured: there is no go command that answers.
    """
    try:
        output = await _output(go, environment)
    except (OSError, Unavailable) as error:
        raise Misconfigured(
            f"{go} env does not answer: install Go, or name upstreams and database", field="go"
        ) from error
    try:
        found = json.loads(output)
        proxy, sumdb, root = (str(found[name]) for name in _NAMES)
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"{go} env does not say {', '.join(_NAMES)}: is it a go command?", field="go") from error
    return GoEnvironment(proxy, sumdb, Path(root))


async def _output(go: Path, environment: Mapping[str, str]) -> bytes:
    command = [str(go), "env", "-json", *_NAMES]
    ended = await program.run(command, environment=environment, folder=Path("/"), within_s=_WITHIN_S)
    if ended.status != 0:
        raise Misconfigured(f"{go} env fails: {ended.errors.decode(errors='replace')[:300]}", field="go")
    return ended.output


@dataclass(frozen=True, slots=True)
class Database:
    """A checksum database as GOSUMDB names it: its key, and its address where it is not the key's name."""

    verifier: Verifier
    url: str | None


def database(text: str, root: Path) -> Database | None:
    """The database of a GOSUMDB value: `NAME`, `NAME+HASH+KEY`, either with a URL after it; None for `off`.

    Raises:
        InvalidInput: it is none of these.
        Misconfigured: only a name is given, and the go command below `root` does not know its key.
    """
    words = text.split()
    if words == ["off"]:
        return None
    # An empty value is no wish to verify nothing: for the go command it is the default.
    if not 0 < len(words) <= 2:  # noqa: PLR2004 - a key and a URL
        raise InvalidInput("GOSUMDB must be off, a key, or a key and a URL", field="sumdb")
    verifier = parse_verifier(words[0]) if "+" in words[0] else _known(words[0], root)
    return Database(verifier, words[1].rstrip("/") if len(words) > 1 else None)


def _known(name: str, root: Path) -> Verifier:
    """The key that the go command itself has for a database's name; its hash proves that it is whole."""
    pattern = re.compile(re.escape(name.encode()) + rb"\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}")
    for place in (root / "src/cmd/go/internal/modfetch/key.go", root / "bin/go"):
        for text in _matches(place, pattern):
            try:
                return parse_verifier(text)
            except InvalidInput:
                continue
    raise Misconfigured(f"the key of {name} is not known here: give it as NAME+HASH+KEY", field="sumdb")


def _matches(place: Path, pattern: re.Pattern[bytes]) -> list[str]:
    try:
        with place.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return [match[0].decode() for match in pattern.finditer(content)]
    except (OSError, ValueError):
        return []
