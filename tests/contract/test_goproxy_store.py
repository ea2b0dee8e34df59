"""Every store of modules keeps the same promises."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.disk import DiskStore
from mooring.goproxy.keeping import read
from mooring.goproxy.memory import MemoryStore
from mooring.goproxy.ports import FullStore
from mooring.goproxy.s3 import S3Store
from support.s3 import s3_server


def disk(folder: Path) -> DiskStore:
    """On a disk."""
    store = DiskStore(folder)
    store.prepare()
    return store


@pytest.fixture(params=["disk", "memory", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FullStore]:
    """Each implementation, empty."""
    if request.param == "disk":
        yield disk(tmp_path / "store")
    elif request.param == "memory":
        yield MemoryStore()
    else:
        with s3_server(tmp_path / "s3") as server:
            async with httpx2.AsyncClient() as http:
                yield S3Store(server.bucket, http)


async def content(store: FullStore, name: str) -> bytes | None:
    """All of a file."""
    blob = await store.open(name)
    if blob is None:
        return None
    try:
        return await blob.read(0, blob.size)
    finally:
        blob.close()


async def test_what_was_put_is_read(store: FullStore) -> None:
    """A file is there after it was saved, whole and in parts, and not before."""
    assert await content(store, "example.com/x/@v/list") is None
    await store.put("example.com/x/@v/list", b"v1.0.0\n")
    assert await content(store, "example.com/x/@v/list") == b"v1.0.0\n"
    blob = await store.open("example.com/x/@v/list")
    assert blob is not None
    assert await blob.read(1, 3) == b"1.0"
    assert await blob.read(7, 10) == b""
    with await blob.file() as file:
        assert file.read() == b"v1.0.0\n"
    blob.close()
    blob.close()


async def test_a_large_file_is_read_whole(store: FullStore) -> None:
    """Whoever wants all of a file has all of it, also where a store gives it in parts."""
    data = os.urandom(3 * 2**20 + 1)
    await store.put("example.com/x/@v/v1.0.0.mod", data)
    assert await read(store, "example.com/x/@v/v1.0.0.mod") == data


async def test_an_open_file_stays_what_it_was(store: FullStore) -> None:
    """Who reads a file that is replaced or removed meanwhile reads the old one to its end."""
    await store.put("a.b/x", b"old")
    first = await store.open("a.b/x")
    await store.put("a.b/x", b"new!")
    second = await store.open("a.b/x")
    await store.remove("a.b/x")
    assert first is not None
    assert second is not None
    assert await first.read(0, 10) == b"old"
    assert await second.read(0, 10) == b"new!"
    assert await store.open("a.b/x") is None
    first.close()
    second.close()


async def test_names_are_as_they_are_in_the_protocol(store: FullStore) -> None:
    """Marks of escapes, pluses and dots stay what they are, and an empty file is one."""
    for name in ("a.b/!x/@v/v1.0.0+incompatible.mod", "a.b/x~y/@v/v1.0.0-rc.1.zip", "sumdb/s.x/tile/8/0/x001/002.p/7"):
        await store.put(name, name.encode())
        assert await content(store, name) == name.encode()
    await store.put("a.b/x/@v/list", b"")
    assert await content(store, "a.b/x/@v/list") == b""


async def test_a_file_of_the_spool_is_taken_over(store: FullStore, tmp_path: Path) -> None:
    """An adopted file has its content and is gone from where it was."""
    (tmp_path / "store").mkdir(exist_ok=True)
    file = tmp_path / "store" / "received"
    file.write_bytes(b"zip")
    await store.adopt("a.b/@v/v1.0.0.zip", file)
    assert await content(store, "a.b/@v/v1.0.0.zip") == b"zip"
    assert not file.exists()


async def test_entries_are_by_prefix(store: FullStore) -> None:
    """Every file whose name begins so, with its size and times."""
    for name in ("a.b/x/@v/v1.0.0.mod", "a.b/x/@v/v1.0.0.info", "a.b/xy/@v/v1.0.0.mod", "c.d/@v/list"):
        await store.put(name, name.encode())
    found = {entry.name: entry async for entry in store.entries("a.b/x/@v/")}
    assert sorted(found) == ["a.b/x/@v/v1.0.0.info", "a.b/x/@v/v1.0.0.mod"]
    assert found["a.b/x/@v/v1.0.0.mod"].size == len("a.b/x/@v/v1.0.0.mod")
    assert found["a.b/x/@v/v1.0.0.mod"].used >= found["a.b/x/@v/v1.0.0.mod"].modified > 0
    assert len([entry async for entry in store.entries()]) == 4
    assert [entry async for entry in store.entries("nothing/")] == []
    await store.healthy()
    await store.remove("not/there")


async def test_the_disk_follows_no_link_and_lists_no_bookkeeping(tmp_path: Path) -> None:
    """A link in the store leads nowhere, and the go command's own locks and partial files are not content."""
    store = disk(tmp_path / "store")
    folder = tmp_path / "store/cache/download/a.b"
    folder.mkdir(parents=True)
    (folder / "x").symlink_to("/etc/passwd")
    (folder / "v1.lock").touch()
    (folder / "v1.zip123.tmp").touch()
    assert await store.open("a.b/x") is None
    assert [entry async for entry in store.entries()] == []
    assert await store.open("a.b/" + "y" * 300) is None


async def test_reading_counts_as_use(tmp_path: Path) -> None:
    """A file that is read is not the one that was unused for longest, on a file system without access times too."""
    store = disk(tmp_path / "store")
    await store.put("a.b/x", b"x")
    os.utime(tmp_path / "store/cache/download/a.b/x", (1, 1))
    await content(store, "a.b/x")
    entries = [entry async for entry in store.entries()]
    assert entries[0].modified == 1
    assert entries[0].used > 1_000_000
