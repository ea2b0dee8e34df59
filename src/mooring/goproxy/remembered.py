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
        """The error that `name` met, None when it met none or that is over. Do not raise it: copy it."""
        found = self._known.get(name)
        return None if found is None or found[0] < now else found[1]

    def put(self, name: str, until: float, error: MooringError) -> None:
        """Remember `error` until then, on the clock that `get` is asked with."""
        # What led to the error would keep a response and its connection in memory for as long.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self.forget(name)
        self._known[name] = (until, error)
        self._room -= _letters(name, error)
        while len(self._known) > self._size or self._room < 0:
            self.forget(next(iter(self._known)))

    def forget(self, name: str) -> None:
        """It works again."""
        if (found := self._known.pop(name, None)) is not None:
            self._room += _letters(name, found[1])


def _letters(name: str, error: MooringError) -> int:
    return len(name) + len(error.detail)
