"""What killed processes left below a store's folder goes, and nothing that somebody still writes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mooring.goproxy import leftovers
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.flight import Flight

LONG_AGO = (1, 1)
NAME = "example.com/x/@v/v1.0.0.mod"


def store(folder: Path) -> DiskStore:
    """A store that is ready."""
    found = DiskStore(folder)
    found.prepare()
    return found


def left(folder: Path, name: str, *, age: tuple[int, int] | None = LONG_AGO) -> Path:
    """A folder with a file in it, as an import unpacks one."""
    path = folder / name
    path.mkdir()
    (path / "x").write_bytes(b"x")
    if age:
        os.utime(path, age)
    return path


def test_what_nobody_writes_goes(tmp_path: Path) -> None:
    """Half a file of the spool, half an import or job; what is too young to be locked and what is a person's stay."""
    spool = store(tmp_path).spool
    (spool / "left").write_bytes(b"half")
    os.utime(spool / "left", LONG_AGO)
    (spool / "young").write_bytes(b"half")
    left(tmp_path, ".mooring-import-left")
    left(tmp_path, ".mooring-job-left")
    young = left(tmp_path, ".mooring-import-young", age=None)
    mine = {left(tmp_path, "import-2026-11"), left(tmp_path, ".mooring-mine")}
    leftovers.sweep(tmp_path)
    assert [path.name for path in spool.iterdir()] == ["young"]
    assert set(tmp_path.iterdir()) == {spool, spool.parent / "cache", young, *mine}


def test_a_sweep_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """A stop waits for one file, not for half an import; the next sweep removes the rest, and follows no link."""
    kept = tmp_path / "kept"
    kept.mkdir()
    folder = left(tmp_path, ".mooring-import-left", age=None)
    for number in range(5):
        left(folder, str(number))
    (folder / "link").symlink_to(kept)
    os.utime(folder, LONG_AGO)
    asked = iter((False,) * 4)
    leftovers.sweep(tmp_path, lambda: next(asked, True))
    assert folder.exists()
    os.utime(folder, LONG_AGO)
    leftovers.sweep(tmp_path)
    assert not folder.exists()
    assert kept.exists()


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    """However long a download pauses, and an import takes."""
    flight = Flight(store(tmp_path).spool / "flight")
    os.utime(flight.spool, LONG_AGO)
    with leftovers.workplace(tmp_path) as folder:
        os.utime(folder, LONG_AGO)
        leftovers.sweep(tmp_path)
        assert folder.exists()
        assert flight.spool.exists()
    flight.land()
    leftovers.sweep(tmp_path)
    assert not folder.exists()
    assert not flight.spool.exists()


async def test_a_small_file_on_a_slow_disk_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a minute to flush a file gets it into the store all the same."""
    flush: Callable[[int], None] = os.fdatasync

    def slow(fd: int) -> None:
        os.utime(fd, LONG_AGO)
        leftovers.sweep(tmp_path)
        flush(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    kept = store(tmp_path)
    await kept.put(NAME, b"module example.com/x\n")
    blob = await kept.open(NAME)
    assert blob is not None
    assert blob.modified > LONG_AGO[1]
    blob.close()
