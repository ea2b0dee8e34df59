"""Text that came from elsewhere, made fit for a terminal: a control sequence (ECMA-48) could rewrite the screen."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ALL_BUT_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """One line, its control characters made visible."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def indented(text: str) -> str:
    """A finding with what belongs to it, such as the last lines of a program's output, below its first line."""
    return "\n  ".join(map(clean, text.splitlines()))


def screen(text: str) -> str:
    """A program's output: lines, tabs and colours (SGR) stay, other control characters go."""
    return _ALL_BUT_COLOURS.sub(r"\1", text)
