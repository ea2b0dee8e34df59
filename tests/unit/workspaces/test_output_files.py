"""Output files: absolute offsets, rotation, and a disk without room."""

import os
import resource
import signal
from pathlib import Path

import pytest

from mooring.workspaces import output
from mooring.workspaces.output import Log


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation after a kilobyte."""
    monkeypatch.setattr(output, "SEGMENT_BYTES", 1000)


def read_all(folder: Path, offset: int = 0) -> tuple[int, bytes]:
    """Everything from `offset`, as a reader gets it who comes back with each offset."""
    read = b""
    while True:
        offset, data = output.read_at(str(folder), offset, 97)
        if not data:
            return offset, read
        read += data


def test_offsets_go_on_across_rotation(tmp_path: Path) -> None:
    """A reader that comes back with its offset gets neither gap nor repetition, whichever file it lands in."""
    log = Log(str(tmp_path))
    lines = [b"line %04d\n" % number for number in range(150)]
    for line in lines:
        log.append(line)
    assert len(output.segments(str(tmp_path))) == 2
    end, read = read_all(tmp_path, 700)
    assert end == 1500
    assert read == b"".join(lines)[700:]


def test_the_oldest_kept_byte_stands_for_what_is_gone(tmp_path: Path) -> None:
    """Two files are kept; an offset before them reads from the oldest kept byte."""
    log = Log(str(tmp_path))
    for number in range(500):
        log.append(b"line %04d\n" % number)
    oldest = output.segments(str(tmp_path))[0]
    assert oldest > 0
    offset, data = output.read_at(str(tmp_path), 0, 10)
    assert (offset, data) == (oldest + 10, b"line %04d\n" % (oldest // 10))


def test_an_offset_that_was_never_given_is_the_end(tmp_path: Path) -> None:
    """Who follows from before a backup was restored reads what comes next, instead of nothing for a long time."""
    log = Log(str(tmp_path))
    log.append(b"before\n")
    offset, read = output.read_at(str(tmp_path), 10**18)
    assert (offset, read) == (7, b"")
    log.append(b"after\n")
    assert read_all(tmp_path, offset) == (13, b"after\n")


def test_a_new_writer_goes_on_behind_the_last(tmp_path: Path) -> None:
    """A keeper that follows another appends; offsets do not begin anew."""
    Log(str(tmp_path)).append(b"first\n")
    Log(str(tmp_path)).append(b"second\n")
    assert read_all(tmp_path) == (13, b"first\nsecond\n")


def test_what_was_never_written_reads_as_nothing(tmp_path: Path) -> None:
    """No folder, no file: no output, at the offset that was asked for."""
    assert output.read_at(str(tmp_path / "none"), 7) == (7, b"")
    assert output.last_lines(str(tmp_path / "none")) == ""


def test_the_last_lines_are_for_a_person(tmp_path: Path) -> None:
    """Bytes that are no text do not hide the rest."""
    Log(str(tmp_path)).append(b"one\ntwo\n\xff three\nfour\n")
    assert output.last_lines(str(tmp_path), lines=2) == "\ufffd three\nfour"


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """What cannot be written waits in memory, within bounds; what is lost is counted in the output itself."""
    log = Log(str(tmp_path))
    log.append(b"before\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7, before[1]))
    try:
        log.append(b"during\n")
        assert log.waiting
        assert log.error == os.strerror(27)
        log.append(b"x" * output.PENDING_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    log.flush()
    assert not log.waiting
    assert log.error == ""
    whole = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert whole.startswith(b"before\nduring\nxxx")
    assert b"7 bytes of output were lost: File too large" in whole[-100:]
