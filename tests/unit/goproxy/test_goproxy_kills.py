"""kill -9 at every point of a save: of a module's file, of a zip, of a record of the notary, of its first key."""

import os
import shutil
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from mooring.errors import Misconfigured
from mooring.goproxy import leftovers
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.pins import Pins
from support.killing import killed_at

NAME = "example.com/x/@v/v1.0.0.zip"
ZIP = os.urandom(300_000)
RECORDS = [b"a v1.0.0 h1:a\n", b"b v1.0.0 h1:b\nb v1.0.0/go.mod h1:c\n"]


def store(folder: Path) -> DiskStore:
    """A store that is ready."""
    found = DiskStore(folder)
    found.prepare()
    return found


def received(folder: Path, content: bytes) -> Path:
    """A file in the spool."""
    file = folder / "spool/received"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("before", [None, b"the old one"])
def test_a_save_is_there_or_not(tmp_path: Path, before: bytes | None) -> None:
    """A reader sees the file that was there or the new one, whole; the next save after the kill succeeds."""
    target = tmp_path / "cache/download" / NAME
    for point in count():
        done = []
        for save in ("put", "adopt"):
            shutil.rmtree(tmp_path, ignore_errors=True)
            kept = store(tmp_path)
            if before is not None:
                kept._put(NAME, before)
            if save == "put":
                ended = not killed_at(point, partial(kept._put, NAME, ZIP))
            else:
                ended = not killed_at(point, partial(kept._adopt, NAME, received(tmp_path, ZIP)))
            found = target.read_bytes() if target.exists() else None
            assert found in (before, ZIP)
            assert not ended or found == ZIP
            done.append(ended)
            store(tmp_path)._put(NAME, ZIP)
            assert target.read_bytes() == ZIP
        if all(done):
            break
    assert point > 5


def test_what_was_left_in_the_spool_goes(tmp_path: Path) -> None:
    """After a kill a sweep removes what nobody writes any more, and nothing that another process writes."""
    kept = store(tmp_path)
    left = 0
    for point in count():
        if not killed_at(point, partial(kept._put, NAME, ZIP)):
            break
        left += len(list(kept.spool.iterdir()))
    assert left
    for file in kept.spool.iterdir():
        os.utime(file, (1, 1))
    leftovers.sweep(tmp_path)
    assert list(kept.spool.iterdir()) == []


def test_a_pin_is_there_or_not(tmp_path: Path) -> None:
    """The pins before or the new ones, whole; what a kill left is gone after the next change."""
    for point in count():
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        pins = Pins(tmp_path / "pins")
        pins._change({"example.com/a"}, set())
        ended = not killed_at(point, partial(pins._change, {"example.com/b"}, set()))
        assert pins._read() in (["example.com/a"], ["example.com/a", "example.com/b"])
        pins._change({"example.com/c"}, set())
        assert [path.name for path in tmp_path.iterdir()] == ["pins"]
        if ended:
            break
    assert point > 2


def opened(folder: Path) -> Ledger:
    """The log, opened again."""
    return Ledger(folder, "sum.example")


def append(folder: Path, texts: list[bytes]) -> None:
    """As a process does that was just started."""
    ledger = opened(folder)
    with ledger.exclusive():
        ledger.append(texts)


def test_an_append_is_there_or_not(tmp_path: Path) -> None:
    """Killed at any point, the log opens with all that was acknowledged and nothing torn, and takes the next."""
    whole, folder = tmp_path / "whole", tmp_path / "log"
    append(whole, RECORDS[:1])
    seen = set()
    for point in count():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        ended = not killed_at(point, partial(append, folder, RECORDS[1:]))
        found = opened(folder).records()
        assert found in (RECORDS[:1], RECORDS)
        assert not ended or found == RECORDS
        seen.add(len(found))
        append(folder, [b"c v1.0.0 h1:c\n"])
        assert opened(folder).records() == [*found, b"c v1.0.0 h1:c\n"]
        if ended:
            break
    assert seen == {1, 2}


def test_the_first_start_can_be_killed(tmp_path: Path) -> None:
    """Killed at any point of making the key, the next start makes one or has one, and keeps it."""
    for point in count():
        folder = tmp_path / str(point)
        ended = not killed_at(point, partial(append, folder, RECORDS))
        key = opened(folder).signer.text
        assert opened(folder).signer.text == key
        assert opened(folder).records() in ([], RECORDS)
        if ended:
            break
    assert point > 5


def test_the_first_append_can_be_killed(tmp_path: Path) -> None:
    """Also where the disk was full when the first head was due: nobody lost what never was."""
    for point in count():
        folder = tmp_path / str(point)
        ledger = opened(folder)
        (folder / "head").unlink()

        def first(ledger: Ledger = ledger) -> None:
            with ledger.exclusive():
                ledger.append(RECORDS)

        ended = not killed_at(point, first)
        found = opened(folder).records()
        assert found == RECORDS if ended else found in ([], RECORDS)
        if ended:
            break
    assert point > 5


@pytest.mark.parametrize("name", ["records", "head", "key"])
def test_a_log_cut_at_any_byte(tmp_path: Path, name: str) -> None:
    """A file of the log that lost its end is said, or has lost nothing that was signed; it is never signed over."""
    whole, folder = tmp_path / "whole", tmp_path / "log"
    append(whole, RECORDS)
    content = (whole / name).read_bytes()
    for length in range(len(content)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content[:length])
        try:
            found = opened(folder).records()
        except Misconfigured:
            assert (folder / name).read_bytes() == content[:length]
        else:
            assert found == RECORDS
