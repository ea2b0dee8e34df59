"""Semantic versions as the go command reads them (https://go.dev/ref/mod#versions). Pure.

Written `vMAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]`; canonical ones are complete and have no build but `+incompatible`.
"""

import re
from functools import lru_cache
from typing import Any

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"v({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)
_PSEUDO = re.compile(r"v[0-9]+\.(0\.0-|\d+\.\d+-([^+]*\.)?0\.)\d{14}-[A-Za-z0-9]+(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")


def is_valid(version: str) -> bool:
    """Whether it is a complete semantic version with its `v`."""
    return _VERSION.fullmatch(version) is not None


@lru_cache(maxsize=8192)
def is_canonical(version: str) -> bool:
    """Whether it names one module version for ever: complete, and no build metadata but `+incompatible`."""
    match = _VERSION.fullmatch(version)
    return match is not None and match[5] in (None, "incompatible")


def is_pseudo(version: str) -> bool:
    """Whether it names a commit (https://go.dev/ref/mod#pseudo-versions); those are in no list."""
    return version.count("-") > 1 and is_valid(version) and _PSEUDO.fullmatch(version) is not None


def major(version: str) -> str:
    """`v2` of `v2.3.4`."""
    return version.partition(".")[0]


def compare(one: str, other: str) -> int:
    """Negative, zero or positive as `one` comes before, with or after `other`; build metadata does not count."""
    left, right = key(one), key(other)
    return (left > right) - (left < right)


def key(version: str) -> tuple[Any, ...]:
    """For sorting valid versions."""
    numbers, prerelease = _parts(version)
    # A release comes after all its pre-releases.
    return numbers, not prerelease, [_rank(x) for x in prerelease.split(".")] if prerelease else []


def _parts(version: str) -> tuple[tuple[int, ...], str]:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(version)
    return tuple(int(number) for number in match.group(1, 2, 3)), match[4] or ""


def _rank(identifier: str) -> tuple[Any, ...]:
    """Numbers compare as numbers and come before words (semver.org, 11.4)."""
    return (0, int(identifier), "") if identifier.isdecimal() else (1, 0, identifier)


def matches(version: str, query: str) -> bool:
    """Whether a version query of a filter holds: `v1.2` (its prefix), `<v1.2.0`, `<=`, `>`, `>=`, `~v1.2.3`, `^v1.2.3`.

    Raises:
        ValueError: for a query that is none of these.
    """
    for operator in ("<=", ">=", "<", ">", "~", "^"):
        if query.startswith(operator):
            return _holds(version, operator, query.removeprefix(operator))
    if is_valid(query):
        return version == query
    if re.fullmatch(rf"v{_NUMBER}(\.{_NUMBER})?", query) is None:
        raise ValueError(query)
    return version.startswith(query + ".")


def _holds(version: str, operator: str, bound: str) -> bool:
    order = compare(version, bound)
    if operator in ("~", "^"):
        kept = 2 if operator == "~" else 1
        return order >= 0 and _parts(version)[0][:kept] == _parts(bound)[0][:kept]
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operator]
