"""What is wrong with a TOML file that a person wrote: which file, which line, which key, and what is allowed. Pure."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mooring.errors import InvalidInput
from mooring.model.wording import said

_PLACE = re.compile(r"\(at line (?P<line>\d+), column \d+\)$")
_TABLE = re.compile(r"\s*(?P<many>\[)?\[\s*(?P<name>[A-Za-z0-9_.\-]+)\s*\]")
_KEY = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\-]+|\"[^\"]*\")\s*=")


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a file: where (`key` is a dotted path, empty for the whole file) and what is allowed."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.text}"


class BadToml(InvalidInput):
    """A file that cannot be used; `mistakes` has all that is wrong with it."""

    code = "bad_file"

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)), field="file")
        self.mistakes = tuple(mistakes)


def read(text: str, file: str) -> dict[str, Any]:
    """The document in `text`.

    Raises:
        BadToml: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise BadToml([Mistake(file, 1, "", "must not be nested so deep")]) from error
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place["line"]) if place else max(1, text.count("\n"))
        raise BadToml([Mistake(file, line, "", _PLACE.sub("", str(error)).strip())]) from error


def mistakes_of(text: str, file: str, error: ValidationError) -> tuple[Mistake, ...]:
    """What pydantic found, at the lines where it stands."""
    return tuple(_mistake(text, file, item) for item in error.errors(include_url=False))


def _mistake(text: str, file: str, item: Mapping[str, Any]) -> Mistake:
    path = [str(part) for part in item["loc"]]
    return Mistake(file, line_of(text, path), ".".join(path), said(item))


def line_of(text: str, path: Sequence[str]) -> int:
    """The line of the key, of the nearest table above it when the key is missing, 1 when that is missing too."""
    table: list[str] = []
    best, depth = 1, 0
    seen: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = header["name"].split(".")
            if header["many"]:
                table.append(str(seen[header["name"]]))
                seen[header["name"]] += 1
            here = table
        elif key := _KEY.match(line):
            here = [*table, *key["name"].strip('"').split(".")]
        else:
            continue
        if len(here) > depth and list(path[: len(here)]) == here:
            best, depth = number, len(here)
    return best
