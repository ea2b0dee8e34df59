"""The store on a local disk, where files or folders are not the proxy's own."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mooring.errors import Unavailable
from mooring.goproxy import disk, leftovers
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.eviction import Eviction
from mooring.goproxy.memory import MemoryStore
from mooring.goproxy.names import Ask
from mooring.goproxy.pins import Pins

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


@pytest.mark.parametrize("left", [0, 6])
def test_a_file_that_is_cut_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """Somebody who writes into the store by hand empties or cuts a file after its size was asked for."""
    store = DiskStore(tmp_path)
    store.prepare()
    file = tmp_path / "cache/download" / NAME
    file.parent.mkdir(parents=True)
    file.write_text("module example.com/x\n")
    assert store.small(NAME) == b"module example.com/x\n"
    asked: Callable[[int], os.stat_result] = os.fstat

    def cut(fd: int) -> os.stat_result:
        status = asked(fd)
        os.truncate(file, left)
        return status

    monkeypatch.setattr(os, "fstat", cut)
    assert store.small(NAME) is None


async def test_what_another_user_left_in_the_spool_stops_nobody(copied: DiskStore) -> None:
    """A killed `warm` of root's leaves what the proxy may not even open; it serves all the same."""
    copied.spool.joinpath("left").write_bytes(b"half a zip")
    copied.spool.joinpath("left").chmod(0o600)
    os.utime(copied.spool / "left", (1, 1))
    with somebody_else():
        copied.prepare()
        leftovers.sweep(copied.spool.parent)
        assert await copied.open(NAME)


async def test_what_cannot_be_removed_is_said(copied: DiskStore) -> None:
    """An eviction goes on with the others, and the file is still there."""
    with somebody_else(), pytest.raises(Unavailable, match="Permission denied"):
        await copied.remove(NAME)
    await copied.remove(NAME)
    assert await copied.open(NAME) is None


async def test_what_is_no_file_is_none(tmp_path: Path) -> None:
    """A folder, a pipe or a link by the name of a module's file is not served, and nobody waits for it."""
    store = DiskStore(tmp_path)
    store.prepare()
    await store.put(NAME, b"module example.com/x\n")
    file = tmp_path / "cache/download" / NAME
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - how many, nothing else
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to(file)):
        path = file.with_name("v1.1.0.mod")
        make(path)
        assert await store.open("example.com/x/@v/v1.1.0.mod") is None
        path.rmdir() if path.is_dir() else path.unlink()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_a_file_on_a_bad_block_is_the_stores_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read whole it fails as it does when it is opened, and the short way leaves it to the long one."""
    store = DiskStore(tmp_path)
    store.prepare()
    await store.put(NAME, b"module example.com/x\n")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - how many, nothing else

    def bad(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", bad)
        with pytest.raises(Unavailable, match="store fails: Input/output error"):
            store.small(NAME)
    assert store.small(NAME) == b"module example.com/x\n"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_an_eviction_goes_on_with_the_others(copied: DiskStore) -> None:
    """What cannot be removed is kept, with the reason, and the next in line goes."""
    for module in ("first", "second"):
        await copied.put(f"example.com/{module}/@v/v1.0.0.zip", b"x" * 100)
    folder = copied.spool.parent / "cache/download/example.com/second/@v"
    os.chown(folder, NOBODY, NOBODY)
    eviction = Eviction(copied, Pins(copied.spool.parent / "pins"), _comes_back)
    with somebody_else():
        done = await eviction.run(0)
    assert [item.ask.module for item in done.evicted] == ["example.com/second"]
    assert "Permission denied" in done.kept["example.com/first@v1.0.0"]


async def test_a_bad_block_ends_no_eviction(tmp_path: Path) -> None:
    """A zip that cannot be read stays, with the reason, and the next in line goes."""
    store = MemoryStore()
    for module in ("bad", "good"):
        await store.put(f"example.com/{module}/@v/v1.0.0.zip", b"x" * 100)

    async def returns(wanted: Ask) -> None:
        if wanted.module == "example.com/bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    done = await Eviction(store, Pins(tmp_path / "pins"), returns).run(0)
    assert [item.ask.module for item in done.evicted] == ["example.com/good"]
    assert done.kept == {"example.com/bad@v1.0.0": "it cannot be read: Input/output error"}


async def test_a_pin_counts_at_once(tmp_path: Path) -> None:
    """Also in an eviction that has begun, which an upstream may keep for hours."""
    store, pins = MemoryStore(), Pins(tmp_path / "pins")
    for module in ("one", "two"):
        await store.put(f"example.com/{module}/@v/v1.0.0.zip", b"x" * 100)

    async def returns(_wanted: Ask) -> None:
        await pins.add("example.com/*")

    done = await Eviction(store, pins, returns).run(0)
    assert done.evicted == []
    assert set(done.kept.values()) == {"pinned by example.com/*"}


async def test_a_folder_that_cannot_be_listed_is_said(copied: DiskStore) -> None:
    """Who looks at the store, or evicts from it, hears of it as of any trouble with the storage."""
    folder = copied.spool.parent / "cache/download/example.com"
    folder.chmod(0o700)
    with somebody_else(), pytest.raises(Unavailable, match=r"example\.com cannot be listed: Permission denied"):
        _ = [entry async for entry in copied.entries()]


async def _comes_back(_: Ask) -> None:
    """Nothing speaks against it."""


async def test_the_health_question_leaves_the_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that took a file lately is asked for its room only; one that took none for long, or refused, is tried."""
    store = DiskStore(tmp_path)
    store.prepare()

    async def tried() -> bool:
        os.utime(store.spool, (0, 0))
        await store.healthy()
        return store.spool.stat().st_mtime > 0

    assert await tried()
    assert not await tried()
    (tmp_path / "cache/download/example.com").write_bytes(b"in the way")
    with pytest.raises(Unavailable):
        await store.put("example.com/x/@v/list", b"v1.0.0\n")
    assert await tried()
    monkeypatch.setattr(disk, "_BELIEVED_S", 0.0)
    assert await tried()
    shutil.rmtree(store.spool)
    with pytest.raises(Unavailable):
        await store.healthy()


async def test_a_disk_that_counts_no_inodes_is_not_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Btrfs says that of none there are none left: a disk with room that took a file lately is not tried for it."""
    store = DiskStore(tmp_path)
    store.prepare()
    await store.healthy()
    os.utime(store.spool, (0, 0))
    found = os.statvfs(tmp_path)
    without = os.statvfs_result((*found[:5], 0, 0, 0, *found[8:10]))
    monkeypatch.setattr(os, "statvfs", lambda _: without)
    await store.healthy()
    assert store.spool.stat().st_mtime == 0
