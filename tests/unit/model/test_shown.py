"""Bytes and seconds as a person reads them."""

import pytest

from mooring.model import shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10_188, "9.9 KiB"),
        (10_240, "10 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5_000_000, "4.8 MiB"),
        (41 * 2**30, "41 GiB"),
        (3 * 2**50, "3072 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    """Two digits below ten of a unit, none above, and never a thousand of one that has a larger."""
    assert shown.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 5.5, "5 d")]
)
def test_durations(seconds: float, text: str) -> None:
    """The largest unit that has one."""
    assert shown.span(seconds) == text
