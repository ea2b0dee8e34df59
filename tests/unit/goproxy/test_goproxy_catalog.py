"""What the catalog makes of files, in whatever order a folder lists them."""

from collections.abc import AsyncIterator
from itertools import permutations

from mooring.control.clock import SystemClock
from mooring.goproxy.catalog import Catalog, Kept
from mooring.goproxy.ports import Entry

FILES = [Entry(f"example.com/x/@v/v1.0.0.{kind}", 10, modified, modified) for kind, modified in
         (("zip", 100.0), ("info", 200.0), ("mod", 300.0))]  # fmt: skip


class Listed:
    """An `Inventory` of these files."""

    def __init__(self, files: list[Entry]) -> None:
        self._files = files

    async def entries(self, prefix: str = "") -> AsyncIterator[Entry]:
        for entry in self._files:
            if entry.name.startswith(prefix):
                yield entry

    async def remove(self, name: str) -> None:
        raise NotImplementedError(name)


async def test_a_version_is_as_old_as_its_first_file() -> None:
    """Also where that is its zip: a mirror that asks for what is newer would get it twice, or never."""
    for files in permutations(FILES):
        (kept,) = await Catalog(Listed(list(files)), SystemClock()).all()
        assert kept == Kept("example.com/x", "v1.0.0", 100.0, 30, 300.0, zip=True)
