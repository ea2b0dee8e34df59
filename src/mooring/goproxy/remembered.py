"""Errors that are remembered for a while, so that they are not paid for again."""

from collections import OrderedDict

from mooring.errors import MooringError

_LETTERS = 200
"""Of a name and its error together, on average: as many as real ones have."""


class Remembered:
    """Up to `size` names, each with the error that it met and until when that counts; the oldest go first.

    Names that are long by intent take the place of several: 1,000 letters each would be hundreds of megabytes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._room = size * _LETTERS
        self._known: OrderedDict[str, tuple[float, MooringError]] = OrderedDict()

    def get(self, name: str, now: float) -> MooringError | None:
        """The error that `name` met, to be raised; None when it met none or that is over."""
        found = self._known.get(name)
        return None if found is None or found[0] < now else _unraised(found[1])

    def put(self, name: str, until: float, error: MooringError) -> None:
        """Remember `error` until then, on the clock that `get` is asked with."""
        self.forget(name)
        self._known[name] = (until, _unraised(error))
        self._room -= _letters(name, error)
        while len(self._known) > self._size or self._room < 0:
            self.forget(next(iter(self._known)))

    def forget(self, name: str) -> None:
        """It works again."""
        if (found := self._known.pop(name, None)) is not None:
            self._room += _letters(name, found[1])


def _unraised(error: MooringError) -> MooringError:
    """The same without its way: each request that it was raised to would stay in memory, with its connection."""
    return type(error)(error.detail, field=error.field)


def _letters(name: str, error: MooringError) -> int:
    return len(name) + len(error.detail)
