"""Cursors: where a page ended, in a form that means nothing to a client."""

import base64
import binascii
from typing import Annotated

from fastapi import Query

from mooring.errors import InvalidInput

MOST = 500
_PREFIX = "c1."

Cursor = Annotated[str | None, Query(max_length=512, description="From the page before.")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most.")]


def encode(position: str | None) -> str | None:
    """The cursor of a position; None for the end."""
    if position is None:
        return None
    return base64.urlsafe_b64encode((_PREFIX + position).encode()).decode().rstrip("=")


def decode(cursor: str | None) -> str | None:
    """The position of a cursor.

    Raises:
        InvalidInput: when we did not make it.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidInput("cursor must be one that a page had", field="cursor") from error
    # PostgreSQL refuses NUL in any text, which would look like an outage.
    if not text.startswith(_PREFIX) or "\0" in text:
        raise InvalidInput("cursor must be one that a page had", field="cursor")
    return text.removeprefix(_PREFIX)
