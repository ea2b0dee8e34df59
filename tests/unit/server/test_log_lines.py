"""Lines of the log reach their file together, in order, and never stand in anybody's way."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import structlog

from mooring.server.lines import Lines, Logger, rendered


async def test_lines_go_out_together_and_warnings_at_once(tmp_path: Path) -> None:
    """Those of the level info wait a moment; what is wrong takes them along; the order is that of the calls."""
    file = tmp_path / "log"
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    lines = Lines(fd)
    lines.info(b"one\n")
    lines.info(b"two\n")
    assert file.read_bytes() == b""
    lines.warning(b"three\n")
    assert file.read_bytes() == b"one\ntwo\nthree\n"
    lines.info(b"four\n")
    while not file.read_bytes().endswith(b"four\n"):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(lines.info, b"five\n")
    assert file.read_bytes().endswith(b"four\nfive\n")
    os.close(fd)


def test_what_the_disk_does_not_take_is_lost() -> None:
    """A full disk is no error of the request whose line it was; without an event loop a line is written at once."""
    fd = os.open("/dev/full", os.O_WRONLY)
    lines = Lines(fd)
    lines.info(b"one\n")
    lines.error(b"two\n")
    os.close(fd)
    reader, writer = os.pipe()
    Lines(writer).info(b"three\n")
    assert os.read(reader, 100) == b"three\n"
    os.close(reader)
    os.close(writer)


def test_half_a_line_takes_no_other_with_it() -> None:
    """What fitted before the disk, or a pipe, was full is ended before the next line."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    lines = Lines(writer)
    lines.warning(b"x" * 6000 + b"\n")
    lines.warning(b"lost\n")
    assert os.read(reader, 10_000) == b"x" * 4096
    lines.warning(b"next\n")
    lines.warning(b"last\n")
    assert os.read(reader, 10_000) == b"\nnext\nlast\n"
    os.close(reader)
    os.close(writer)


def test_a_line_is_json_with_its_level_moment_and_trouble() -> None:
    """Values that JSON has not are shown as Python shows them."""
    line = rendered(None, "info", {"event": "served", "path": Path("/x"), "subject": 'a"b'})
    assert line.endswith(b"}\n")
    found = json.loads(line)
    assert (found["event"], found["level"], found["subject"], found["path"]) == (
        "served",
        "info",
        'a"b',
        repr(Path("/x")),
    )
    assert found["timestamp"].endswith("Z")
    line = rendered(None, "error", {"event": "failed", "exc_info": ValueError("why")})
    assert "ValueError: why" in json.loads(line)["exception"]


def test_a_path_that_is_not_utf_8_is_logged() -> None:
    """Its odd bytes are escaped, and the line is as any other."""
    line = rendered(None, "info", {"event": "served", "file": os.fsdecode(b"/x\xff"), "path": Path("/x")})
    assert line.endswith(b"}\n")
    found = json.loads(line)
    assert (os.fsencode(found["file"]), found["path"]) == (b"/x\xff", repr(Path("/x")))
    assert found["timestamp"].endswith("Z")


def test_both_ways_of_a_logger_write_the_same() -> None:
    """The level info has a shorter one; what is bound, and an error's trace, are in both."""
    reader, writer = os.pipe()
    log = structlog.wrap_logger(Lines(writer), processors=[rendered], wrapper_class=Logger).bind(who="x")
    try:
        int("a mistake")
    except ValueError:
        log.info("served", exc_info=True, ms=1.5)
        log.warning("served", exc_info=True, ms=1.5)
    log.debug("nobody's")
    short, long = (json.loads(line) for line in os.read(reader, 10_000).splitlines())
    assert list(short) == list(long)
    assert "a mistake" in short["exception"]
    assert {**short, "level": "", "timestamp": ""} == {**long, "level": "", "timestamp": ""}
    os.close(reader)
    os.close(writer)


def test_a_library_writes_no_other_lines(tmp_path: Path) -> None:
    """All of a role's log is JSON, a library's warning with its traceback too; no line has what somebody ran."""
    file = tmp_path / "log" / "server.log"
    code = f"""
import logging, pathlib
from mooring.server import logs
logs.to_file(pathlib.Path({str(file)!r}))
exec("import structlog; structlog.get_logger().info('ours', key=1)", {{"__name__": "mooring.somewhere"}})
logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "127.0.0.1:0", "/exec?command=secret")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("uvicorn.error").exception("Exception in %s", "it")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    ours, theirs = (json.loads(line) for line in file.read_text().splitlines())
    assert (ours["event"], ours["key"], ours["level"]) == ("ours", 1, "info")
    assert (theirs["logger"], theirs["level"]) == ("uvicorn.error", "error")
    assert theirs["event"].startswith("Exception in it\nTraceback")
    assert set(ours) - {"key"} == set(theirs) - {"logger"}
