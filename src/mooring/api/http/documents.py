"""How the body of a request is read: JSON as it is meant, with an end to the work that it may cause.

Of a key that stands there twice one would be dropped in silence. And a megabyte that is nothing but brackets makes
hundreds of thousands of objects, or of errors about them, which nobody else's request is served in.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from mooring.errors import InvalidInput, MooringError

MOST_VALUES = 10_000
"""Of a document, those in lists and tables counted with these: more than 64 KiB of environment sensibly hold."""
# To the end of the body where the end of the text is missing: a search that gives up begins again at the next quote.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class DocumentRoute(APIRoute):
    """A path whose body is a document of a person or program: strict JSON, of at most `MOST_VALUES` if `bounded`."""

    bounded: ClassVar[bool] = True

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The path's function, which reads its body by our rules."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            try:
                return await handle(_Strict(request, bounded=self.bounded))
            except HTTPException as error:
                # FastAPI makes one answer of whatever the reading of a body raises.
                if isinstance(error.__cause__, MooringError):
                    raise error.__cause__ from None
                raise

        return strictly


class TableRoute(DocumentRoute):
    """A path that takes as many values as fit into its body."""

    bounded = False


class _Strict(Request):
    """A request whose body is read by our rules."""

    def __init__(self, request: Request, *, bounded: bool) -> None:
        super().__init__(request.scope, request.receive)
        self._bounded = bounded

    async def json(self) -> Any:  # noqa: ANN401 - Starlette's
        raw = await self.body()
        if self._bounded and crowded(raw):
            raise InvalidInput(f"the body must hold at most {MOST_VALUES} values in all")
        return read(raw)


def crowded(raw: bytes) -> bool:
    """Whether a document has more than `MOST_VALUES`; told in milliseconds, whatever it is."""
    if _count(raw) <= MOST_VALUES:
        return False
    # A value has at most two texts, itself and its key: nobody needs to look at more of them.
    rest, texts = _TEXT.subn(b"", raw, count=2 * MOST_VALUES + 1)
    return texts > 2 * MOST_VALUES or _count(rest) > MOST_VALUES


def read(raw: bytes) -> Any:  # noqa: ANN401 - whatever it is
    """The value that `raw` is.

    Raises:
        InvalidInput: a key stands twice in the same table, or a number is none.
        ValueError: it is no JSON in UTF-8.
        RecursionError: it is nested too deep.
    """
    return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_table, parse_constant=_no_number)


def _count(raw: bytes) -> int:
    return sum(map(raw.count, (b"[", b"{", b",")))


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        # Half a surrogate pair stands in no answer, and half a megabyte would stand in it twice.
        key = key[:100].encode(errors="replace").decode()
        raise InvalidInput(f"{key}: stands there twice, and may stand there once", field=key)
    return table


def _no_number(text: str) -> None:
    raise InvalidInput(f"the body must be JSON, which has no {text}")
