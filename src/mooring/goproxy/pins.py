"""What is never evicted because somebody said so: a file of `MODULE` and `MODULE@VERSION` patterns, one a line."""

import asyncio
import os
import secrets
from pathlib import Path

from mooring.errors import InvalidInput
from mooring.goproxy.names import Ask, matches_any


class Pins:
    """The pins in `file`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def all(self) -> list[str]:
        """Every pin, sorted."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[str]:
        try:
            return sorted({line.strip() for line in self._file.read_text().splitlines() if line.strip()})
        except FileNotFoundError:
            return []

    async def add(self, pin: str) -> None:
        """Pin a module pattern, or one version of it.

        Raises:
            InvalidInput: it has spaces, or nothing before the `@`.
        """
        if not pin.partition("@")[0] or any(c.isspace() for c in pin):
            raise InvalidInput("a pin is MODULE or MODULE@VERSION, without spaces", field="pin")
        await asyncio.to_thread(self._write, {*self._read(), pin})

    async def remove(self, pin: str) -> None:
        """Unpin; no error when it is not pinned."""
        await asyncio.to_thread(self._write, {*self._read()} - {pin})

    def _write(self, pins: set[str]) -> None:
        temporary = self._file.with_name(f".{self._file.name}.{secrets.token_hex(6)}")
        temporary.write_text("".join(f"{pin}\n" for pin in sorted(pins)))
        os.replace(temporary, self._file)  # noqa: PTH105 - the same as Path.replace, which returns what nobody needs


def pinned(pins: list[str], ask: Ask) -> bool:
    """Whether a pin covers a version's file."""
    for pin in pins:
        module, _, version = pin.partition("@")
        if version in ("", ask.version) and matches_any((module,), ask.module):
            return True
    return False
