"""What the server's end of a keeper's connection promises, with a socket pair in place of a keeper."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.workspaces.processes.keepers import Link

END_WITHIN_S = 1.0


async def test_a_keepers_time_begins_when_it_was_told(tmp_path: Path) -> None:
    """A stop that was cut off before the keeper took it has cost nothing: told later, it has all of its time."""
    ours, keepers = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - a method of the standard library
    keepers.settimeout(10.0)
    with keepers:
        link = Link("workspace1", tmp_path, ours)
        async with Tasks("test") as tasks:
            link.follow(tasks, lambda _: None, lambda _: None)
            filled = fill(ours)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(END_WITHIN_S / 5):
                    await link.end(END_WITHIN_S)
            await asyncio.sleep(END_WITHIN_S)
            while filled > 0:
                filled -= len(keepers.recv(65536))
            ending = tasks.spawn("end", link.end(END_WITHIN_S))
            assert await asyncio.to_thread(keepers.recv, 100) == b'{"op": "stop"}\n'
            keepers.shutdown(socket.SHUT_RDWR)
            await ending


async def test_only_a_whole_state_is_heard(tmp_path: Path) -> None:
    """What names no keeper is no answer of one: it is not heard, nor does it take the place of what was."""
    ours, keepers = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 - a method of the standard library
    told = ("id", "boot", "keeper", "editor", "phase", "reason", "left", "restarts", "crashes", "generation")
    whole = dict.fromkeys((*told, "socket", "port", "folders", "limited", "unlimited"))
    with keepers:
        link = Link("workspace1", tmp_path, ours)
        async with Tasks("test") as tasks:
            link.follow(tasks, lambda _: None, lambda _: None)
            for strange in ({}, {key: whole[key] for key in whole if key != "boot"}, [1], None):
                keepers.send(json.dumps({"state": strange}).encode() + b"\n")
            with pytest.raises(Unavailable, match="does not answer"):
                await link.heard(END_WITHIN_S / 5)
            keepers.send(json.dumps({"state": whole}).encode() + b"\n")
            assert await link.heard() == whole
            keepers.send(b'{"state": {"phase": "stopped"}}\n')
            keepers.shutdown(socket.SHUT_RDWR)
            await link.ended.wait()
            assert link.state == whole


def fill(connection: socket.socket) -> int:
    """Write until nothing more is taken, as to a keeper that hangs; how many bytes."""
    sent = 0
    while True:
        try:
            sent += connection.send(b" " * 65536)
        except BlockingIOError:
            return sent
