"""The server's role while its database is away: it waits, and still ends when it should. In a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.settings import Home, Installation, Listen, dump
from support.waiting import WITHIN_S, until


@pytest.fixture
def lifeline() -> Iterator[tuple[int, int]]:
    """The pipe that a supervisor's end closes."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


def _start(folder: Path, lifeline: int) -> subprocess.Popen[bytes]:
    """A server whose PostgreSQL nobody has started, as soon as it has found that out."""
    home = Home(folder / "home")
    home.root.mkdir(mode=0o700)
    installation = Installation(home, Listen(), folder / "editor", database_url="postgresql://nobody@127.0.0.1:1/none")
    settings = os.memfd_create("settings", 0)
    os.write(settings, dump(installation))
    command = [sys.executable, "-m", "mooring.server.role", "server"]
    process = subprocess.Popen(
        [*command, f"--settings={settings}", f"--lifeline={lifeline}"], pass_fds=(settings, lifeline)
    )
    os.close(settings)
    log = home.logs / "server.log"
    until(lambda: log.exists() and "something is away" in log.read_text())
    return process


@pytest.mark.parametrize("how", ["stop", "orphaned"])
def test_it_ends_while_the_database_is_away(tmp_path: Path, lifeline: tuple[int, int], how: str) -> None:
    """Ctrl-C waits for a database some seconds and no longer, a server whose supervisor was killed not at all."""
    process = _start(tmp_path, lifeline[0])
    try:
        if how == "stop":
            process.send_signal(signal.SIGTERM)
        else:
            os.close(lifeline[1])
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
