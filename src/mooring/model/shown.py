"""Bytes and seconds as a person reads them."""

_STEP = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))
_FEW = 9.95


def size(count: int) -> str:
    """Bytes: `512 B`, `3.2 MiB`, `41 GiB`. Two digits are what one can compare at a glance."""
    value, unit = float(count), "B"
    for larger in _UNITS:
        # What would be shown as 1024 is one of the next unit.
        if round(value) < _STEP:
            break
        value, unit = value / _STEP, larger
    return f"{value:.1f} {unit}" if unit != "B" and value < _FEW else f"{value:.0f} {unit}"


def span(seconds: float) -> str:
    """A duration in its largest unit: `40 s`, `3 min`, `2 h`, `5 d`."""
    left = max(0, int(seconds))
    for length, unit in _SPANS:
        if left >= length:
            return f"{left // length} {unit}"
    return f"{left} s"
