"""Which modules may be used at all: a file of rules, read again when it changes.

One rule a line, the marks as Athens has them: `+` include, `-` exclude, `D` from the upstream itself, not by us.

    # the default, for what no rule names; without it everything is included: an allow-list begins with `-`
    -
    + example.com/team
    + golang.org/x/*
    - example.com/team/old                       # use example.com/team/new
    - example.com/lib  <v1.4.2,v1.6.0            # CVE-2026-1234: take v1.4.2 or v1.6.1

The pattern is a path or a glob for the leading elements; the longest one that covers the module decides, and of
equally long ones the first whose versions hold. The text after `#` is what the developer reads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import structlog

from mooring.errors import Forbidden, InvalidInput
from mooring.goproxy import semver
from mooring.goproxy.names import matches_any
from mooring.goproxy.stamps import Stamp, stamp

log = structlog.get_logger(__name__)


class Mark(StrEnum):
    """What a rule does."""

    include = "+"
    exclude = "-"
    direct = "D"


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of the file."""

    mark: Mark
    pattern: str = ""
    versions: tuple[str, ...] = ()
    reason: str = ""

    def about(self, module: str) -> bool:
        """Whether it speaks about this module, or versions of it."""
        return not self.pattern or matches_any((self.pattern,), module)

    def covers(self, version: str) -> bool:
        """Whether it speaks about this version of its module; about all of it only without version queries."""
        if not self.versions:
            return True
        return semver.is_valid(version) and any(semver.matches(version, query) for query in self.versions)


_INCLUDE = Rule(Mark.include)
_MODULES = 4096
"""Whose rules are remembered: to find them among hundreds takes a millisecond, and a list asks for each version."""


def parse(text: str) -> list[Rule]:
    """The rules of a file, the most specific first.

    Raises:
        InvalidInput: a line is no rule; names it.
    """
    rules = list(_rules(text))
    return sorted(rules, key=lambda rule: -len(rule.pattern.rstrip("/").split("/")) if rule.pattern else 1)


def _rules(text: str) -> Iterator[Rule]:
    for number, line in enumerate(text.splitlines(), 1):
        words, _, reason = line.partition("#")
        parts = words.split(maxsplit=2)
        if not parts:
            continue
        try:
            mark = Mark(parts[0])
            versions = tuple(query for part in parts[2:] for query in part.replace(",", " ").split())
            for query in versions:
                semver.matches("v1.0.0", query)
        except ValueError as error:
            raise InvalidInput(
                f"line {number} of the filter file must be +, - or D, a pattern, versions such as <v1.2.0: {line!r}",
                field="filter",
            ) from error
        yield Rule(mark, parts[1] if len(parts) > 1 else "", versions, reason.strip())


class Filter:
    """The rules in `file`; None: everything is included. A file that cannot be read leaves the last rules in force."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: Stamp | None = None
        self._rules: list[Rule] = []
        self._about: Callable[[str], list[Rule]] = lambda _module: []
        self.problem = ""
        """Why what the file says now is not in force; empty when it is."""
        if file is not None:
            self._read(file)

    def mark(self, module: str, version: str = "") -> Mark:
        """What is to be done with a version, or with a module's lists.

        Raises:
            Forbidden: it is excluded; with the reason for the developer.
        """
        rule = self._rule(module, version)
        if rule.mark is Mark.exclude:
            name = f"{module}@{version}" if version else module
            raise Forbidden(f"{name} is not allowed here" + (f": {rule.reason}" if rule.reason else ""))
        return rule.mark

    @property
    def active(self) -> bool:
        """Whether there are rules at all."""
        return self._file is not None

    def now(self) -> tuple[list[Rule], Stamp | None]:
        """The rules in force, the most specific first, and the state of the file that they were read from."""
        if self._file is not None:
            self._read_again(self._file)
        return self._rules, self._seen

    def allows(self, module: str, version: str) -> bool:
        """Whether a version may be used."""
        return self._rule(module, version).mark is not Mark.exclude

    def _rule(self, module: str, version: str) -> Rule:
        if self._file is not None:
            self._read_again(self._file)
        return next((rule for rule in self._about(module) if rule.covers(version)), _INCLUDE)

    def _read(self, file: Path) -> None:
        seen = stamp(file)
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error.strerror}", field="filter") from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{file} is no text in UTF-8: byte {error.start} is wrong", field="filter") from error
        rules = parse(text)
        self._about = lru_cache(_MODULES)(lambda module: [rule for rule in rules if rule.about(module)])
        self._rules, self._seen = rules, seen

    def _read_again(self, file: Path) -> None:
        if stamp(file) == self._seen:
            self.problem = ""
            return
        try:
            self._read(file)
        except InvalidInput as error:
            # Half of a file that is just being written must not open what was closed.
            problem = f"{error.detail} (the rules before that are in force)"
            if problem != self.problem:
                log.warning("rules not taken", error=error.detail)
            self.problem = problem
        else:
            self.problem = ""
