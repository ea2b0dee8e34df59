"""A pin or its end as a person or a program reads it: the same whether the API or the files were asked."""

from typing import Self

from pydantic import BaseModel

from mooring.cli.language import _
from mooring.cli.output import Format, note, record
from mooring.errors import InvalidInput


class Pinned(BaseModel):
    """What a pin or its end is about; `version` is empty where it is about all of them."""

    module: str
    version: str
    pinned: bool

    @classmethod
    def of(cls, what: str, *, pinned: bool) -> Self:
        """As `named`."""
        module, version = named(what)
        return cls(module=module, version=version, pinned=pinned)


def named(what: str) -> tuple[str, str]:
    """Module and version of `MODULE` or `MODULE@VERSION`.

    Raises:
        InvalidInput: nothing is behind the `@`: a script's empty variable would mean all versions.
    """
    module, at, version = what.partition("@")
    if at and not version:
        raise InvalidInput(_("{what} has no version behind its @").format(what=what), field="MODULE")
    return module, version


def changed(pin: Pinned, form: Format) -> None:
    """Say it: a sentence beside the results, or a document."""
    if form is Format.table:
        what = f"{pin.module}@{pin.version}" if pin.version else pin.module
        note((_("{what} is pinned.") if pin.pinned else _("{what} is not pinned.")).format(what=what))
    else:
        record(pin, {}, form)
