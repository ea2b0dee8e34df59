"""A pin or its end as a person or a program reads it: the same whether the API or the files were asked."""

from typing import Self

from pydantic import BaseModel

from mooring.cli.language import _
from mooring.cli.output import Format, note, record


class Pinned(BaseModel):
    """What a pin or its end is about; `version` is empty where it is about all of them."""

    module: str
    version: str
    pinned: bool

    @classmethod
    def of(cls, what: str, *, pinned: bool) -> Self:
        """Of `MODULE` or `MODULE@VERSION`."""
        module, _at, version = what.partition("@")
        return cls(module=module, version=version, pinned=pinned)


def changed(pin: Pinned, form: Format) -> None:
    """Say it: a sentence beside the results, or a document."""
    if form is Format.table:
        what = f"{pin.module}@{pin.version}" if pin.version else pin.module
        note((_("{what} is pinned.") if pin.pinned else _("{what} is not pinned.")).format(what=what))
    else:
        record(pin, {}, form)
