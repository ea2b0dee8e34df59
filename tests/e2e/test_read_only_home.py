"""The kernel makes the file system below a running Mooring read-only, as it does after an error of the disk."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.mooring import Mooring, free_port
from support.waiting import until

TRUE_AGAIN_S = 5.0
NAMES = ("calm", "struck")


@dataclass(frozen=True)
class Disk:
    """An ext4 file system of its own, with Debian's way to take an error: read-only from then on."""

    image: Path
    folder: Path

    def make(self) -> None:
        """Make it, empty."""
        with self.image.open("wb") as file:
            file.truncate(96 << 20)
        self.run("mkfs.ext4", "-q", self.image)

    def mount(self) -> None:
        """Mount it."""
        self.run("mount", "-o", "loop,errors=remount-ro", self.image, self.folder)

    def unmount(self) -> None:
        """Unmount it; nobody may use it any more."""
        self.run("umount", self.folder)

    def fail(self) -> None:
        """Have the kernel find an error."""
        device = self.run("findmnt", "-no", "SOURCE", self.folder).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")
        with pytest.raises(OSError, match="Read-only"):
            (self.folder / "probe").touch()

    def repair(self) -> None:
        """What an operator does: unmount, check, mount."""
        self.unmount()
        # e2fsck(8): 1 says that errors were corrected.
        assert subprocess.run(["e2fsck", "-p", self.image], capture_output=True, check=False).returncode <= 1
        self.mount()

    @staticmethod
    def run(*command: str | Path) -> str:
        """Run it to its end."""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def a_disk() -> Iterator[Disk]:
    """One that is mounted until the end of the block."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        disk = Disk(folder / "image", folder / "disk")
        disk.folder.mkdir()
        disk.make()
        disk.mount()
        stack.callback(disk.unmount)
        yield disk


def shown(mooring: Mooring) -> dict[str, dict[str, Any]]:
    """Every workspace as the API shows it, by name."""
    return {item["name"]: item for item in mooring.ask("GET", "/api/v1/workspaces").json()["items"]}


def events(mooring: Mooring, name: str) -> list[str]:
    """What its events say."""
    found = mooring.ask("GET", f"/api/v1/workspaces/{shown(mooring)[name]['id']}/events?limit=500").json()
    return [item["text"] for item in found["items"]]


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk that is about to fail."""
    with a_disk() as mounted:
        yield mounted


@pytest.fixture
def mooring(disk: Disk) -> Iterator[Mooring]:
    """A Mooring whose home is on it, with the workspaces `calm` and `struck`, each with a file of its own."""
    running = Mooring(disk.folder / "home", free_port())
    try:
        running.start()
        running.add_light_template()
        for name in NAMES:
            running.cli("workspace", "create", name, "--template", "light", "--wait")
            running.cli("workspace", "exec", name, "--", "sh", "-c", f"echo {name} > kept; sync kept .")
        # What the test itself put there must outlive the failure; Mooring is to see to its own.
        disk.run("sync", disk.folder / "light_editor.py", running.home / "templates/light.toml")
        yield running
    finally:
        running.stop()


def test_a_home_that_becomes_read_only(mooring: Mooring, disk: Disk) -> None:
    """Editors serve on, changes are refused with the reason, a stop ends everything; repaired, nothing is lost."""
    before = {name: events(mooring, name) for name in NAMES}
    disk.fail()

    assert all(mooring.answers(name) for name in NAMES)
    refused = mooring.cli("workspace", "create", "late", "--template", "light", check=False)
    assert refused.returncode == 9
    assert "database" in refused.stderr
    assert mooring.ask("POST", f"/api/v1/workspaces/{shown(mooring)['calm']['id']}/restart").status_code == 503
    assert "read-only" in mooring.cli("doctor", check=False).stdout

    (struck,) = mooring.processes("light_editor.py", f"/run/w/{shown(mooring)['struck']['id']}/")
    os.kill(struck, signal.SIGKILL)
    until(lambda: "events wait to be written" in mooring.cli("status", check=False).stdout)
    assert mooring.answers("calm")

    assert mooring.stop() == 0
    assert mooring.processes() == []
    assert [line for line in mooring.output if "Error" in line] == []
    disk.repair()
    mooring.start()
    until(lambda: all(item["phase"] == "running" for item in shown(mooring).values()), TRUE_AGAIN_S)
    for name in NAMES:
        until(lambda name=name: mooring.answers(name), TRUE_AGAIN_S)
        assert mooring.cli("workspace", "exec", name, "cat", "kept").stdout == f"{name}\n"
        assert events(mooring, name)[: len(before[name])] == before[name]
        assert any(text.startswith("starting again: ") for text in events(mooring, name))
