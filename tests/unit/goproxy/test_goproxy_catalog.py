"""What the catalog makes of files, in whatever order a folder lists them."""

import json
from collections.abc import AsyncIterator
from itertools import permutations

from mooring.control.clock import SystemClock
from mooring.goproxy.catalog import Catalog, Kept
from mooring.goproxy.ports import Entry
from support.hands import Hands

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


def version(number: int, came: float) -> Entry:
    """The go.mod of a version."""
    return Entry(f"example.com/x/@v/v1.0.{number}.mod", 10, came, came)


async def new(catalog: Catalog, since: str, limit: str = "") -> list[tuple[str, str]]:
    """Moment and version of every line of the index."""
    lines = map(json.loads, (await catalog.index(since, limit, lambda _module: True)).splitlines())
    return [(line["Timestamp"], line["Version"]) for line in lines]


async def test_a_mirror_misses_nothing_that_was_on_its_way() -> None:
    """A version that shows later than a younger one is in the index before that one, whatever moment is asked from."""
    clock, files = Hands(), [version(1, 1_000_000.0 - 200), version(3, 1_000_000.0 - 10)]
    catalog = Catalog(Listed(files), clock)
    ((since, first),) = await new(catalog, "")
    assert first == "v1.0.1"
    files.insert(0, version(2, 1_000_000.0 - 11))
    await clock.sleep(100)
    assert [found for _, found in await new(catalog, since)] == ["v1.0.1", "v1.0.2", "v1.0.3"]


async def test_a_moment_that_was_shown_is_asked_from() -> None:
    """Rounded up in the answer, it would leave out what an answer with a limit had no room for."""
    came = 1_000.0000017
    catalog = Catalog(Listed([version(1, came), version(2, came)]), Hands())
    ((since, _),) = await new(catalog, "", "1")
    assert [found for _, found in await new(catalog, since)] == ["v1.0.1", "v1.0.2"]
