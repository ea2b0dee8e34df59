"""What a look at one thing found."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """`missing` and `wrong` keep Mooring or a part of it from working; `notice` is worth knowing."""

    good = "ok"
    notice = "notice"
    missing = "missing"
    wrong = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` is what to type, empty when nothing is to be done."""

    verdict: Verdict
    what: str
    detail: str
    remedy: str = ""
