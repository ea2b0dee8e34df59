"""Mooring without root, as on a laptop; and with root, of which it keeps nothing but the supervisor."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.mooring import Mooring, free_port, installation

USER = "mooring"


@pytest.fixture
def ordinary() -> Iterator[Mooring]:
    """One that an ordinary user started, with the running workspace `mine`."""
    folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    shutil.chown(folder, USER, USER)
    running = Mooring(folder / "home", free_port(), user=USER)
    try:
        running.start()
        running.add_light_template()
        (running.home / "templates/light.toml").chmod(0o644)
        running.cli("workspace", "create", "mine", "--template", "light", "--memory", "64Mi", "--wait")
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


def users(mooring: Mooring) -> dict[int, str]:
    """Who its processes run as: the real, effective and saved user, by process."""
    found = {}
    for pid in {mooring.pid, *mooring.processes()}:
        # Some live for a moment only.
        with suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            found[pid] = next(line for line in status.splitlines() if line.startswith("Uid:"))
    return found


def test_no_root_is_needed(ordinary: Mooring) -> None:
    """A workspace answers, what cannot be limited is said, and a stop leaves nothing."""
    assert ordinary.status(f"mine--{USER}.localhost") == 200
    assert "Uid:\t0" not in "".join(users(ordinary).values())
    assert "memory 64Mi (not limited here)" in ordinary.cli("workspace", "show", "mine").stdout
    assert ordinary.cli("workspace", "exec", "mine", "--", "id", "-un").stdout == f"{USER}\n"
    assert ordinary.stop() == 0
    assert ordinary.processes() == []


def test_of_root_only_the_supervisor_is_left() -> None:
    """Server, gateway, nginx, module proxy, keepers and editors are another user, in every one of their ids."""
    with installation() as mooring:
        mooring.add_light_template()
        mooring.cli("workspace", "create", "mine", "--template", "light", "--wait")
        found = users(mooring)
        assert found.pop(mooring.pid) == "Uid:\t0\t0\t0\t0"
        assert len(found) >= 7
        assert not [pid for pid, line in found.items() if "0" in line.split()[1:]]
