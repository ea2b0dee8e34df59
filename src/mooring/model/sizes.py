"""Numbers of bytes as a person reads them."""

_STEP = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def shown(size: int) -> str:
    """`512 B`, `3.2 MiB`, `41 GiB`: two digits, which is what one can compare at a glance."""
    value, unit = float(size), "B"
    for larger in _UNITS:
        # What would be shown as 1024 is one of the next unit.
        if round(value) < _STEP:
            break
        value, unit = value / _STEP, larger
    return f"{value:.1f} {unit}" if unit != "B" and round(value, 1) < 10 else f"{value:.0f} {unit}"  # noqa: PLR2004
