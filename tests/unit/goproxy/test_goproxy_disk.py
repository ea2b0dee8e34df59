"""The store on a local disk, where files or folders are not the proxy's own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mooring.errors import Unavailable
from mooring.goproxy.disk import DiskStore

NAME = "example.com/x/@v/v1.0.0.mod"
NOBODY = 65534


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be another user, as far as files are concerned."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def copied() -> Iterator[DiskStore]:
    """A store with an old file that root copied in; everybody may read it."""
    with tempfile.TemporaryDirectory(prefix="mrg-store-", dir="/tmp") as folder:
        root = Path(folder)
        store = DiskStore(root)
        store.prepare()
        file = root / "cache/download" / NAME
        file.parent.mkdir(parents=True)
        file.write_text("module example.com/x\n")
        os.utime(file, (1, 1))
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        yield store


async def test_what_somebody_else_copied_in_is_served(copied: DiskStore) -> None:
    """An administrator's copy is readable and no more: when it was read last cannot be kept, which costs nobody it."""
    with somebody_else():
        blob = await copied.open(NAME)
    assert blob is not None
    assert await blob.read(0, 100) == b"module example.com/x\n"
    blob.close()


async def test_what_cannot_be_removed_is_said(copied: DiskStore) -> None:
    """An eviction goes on with the others, and the file is still there."""
    with somebody_else(), pytest.raises(Unavailable, match="Permission denied"):
        await copied.remove(NAME)
    await copied.remove(NAME)
    assert await copied.open(NAME) is None
