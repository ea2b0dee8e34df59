"""What the docker runtime computes without an engine."""

from pathlib import Path

import pytest

from mooring.errors import LimitExceeded
from mooring.model.workspace import Limits
from mooring.workspaces.docker import crashes as docker_crashes
from mooring.workspaces.docker.container import Enforcement, Names, stamped, why_dead
from mooring.workspaces.docker.crashes import Crashes
from mooring.workspaces.docker.engine import DockerEngine
from mooring.workspaces.docker.network import Networks
from mooring.workspaces.docker.output import Copy, Position
from mooring.workspaces.output import read_at

_STAMP = "2026-11-21T06:26:43.193123456Z"


def test_a_bridge_name_fits_the_kernel() -> None:
    """Interface names have at most 15 characters."""
    assert len(Names("abcdefghij").bridge) <= 15


def test_a_limit_is_in_force_or_said_not_to_be() -> None:
    """Only what was asked for is named, each on one side."""
    limits = Limits(cpu=1.0, memory="1Gi", storage="1Gi")
    enforcement = Enforcement.of({"CpuCfsQuota": True, "MemoryLimit": False, "PidsLimit": True}, storage=False)
    assert enforcement.split(limits) == (("cpu",), ("memory", "storage"))


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"ExitCode": 137, "OOMKilled": True}, "memory limit"),
        ({"ExitCode": 137}, "signal 9"),
        ({"ExitCode": 255}, "exit status 255"),
        ({"ExitCode": 3, "Error": "no such folder"}, "status 3: no such folder"),
    ],
)
def test_a_death_has_a_reason(state: dict[str, object], why: str) -> None:
    """Memory goes before the signal that it was ended by."""
    assert why in why_dead({"State": state})


def test_five_deaths_in_ten_minutes_are_too_many() -> None:
    """The delay doubles, one death counts once, and the fifth is the last."""
    crashes = Crashes(1)
    delays = []
    for number in range(4):
        assert crashes.count(f"death {number}", "ended", 1000.0 + number)
        assert not crashes.count(f"death {number}", "ended", 1000.0 + number)
        delays.append(round(crashes.due - 1000.0 - number, 3))
    assert delays == [0.2, 0.4, 0.8, 1.6]
    assert not crashes.failed
    crashes.count("death 4", "ended with exit status 1", 1010.0)
    assert crashes.failed
    assert crashes.reason == "the editor ended 5 times in 10 minutes; the last one ended with exit status 1"


def test_a_clock_that_is_set_back_delays_no_start() -> None:
    """No start is waited for longer than the longest delay."""
    crashes = Crashes(1)
    crashes.count("death", "ended", 90_000.0)
    assert crashes.wait_s(90_000.0) == pytest.approx(0.2)
    assert crashes.wait_s(1000.0) == 0.0


def test_deaths_long_ago_are_forgotten() -> None:
    """An editor that dies once an hour is always started again."""
    crashes = Crashes(1)
    for hour in range(10):
        crashes.count(f"death {hour}", "ended", hour * 3600.0)
    assert not crashes.failed
    assert crashes.restarts == 10


def test_deaths_are_kept_for_their_start_only(tmp_path: Path) -> None:
    """Another server knows the count; another start begins anew, and so does one whose file is broken."""
    crashes = Crashes(3, notices=("git clone failed",))
    crashes.count("death", "ended", 1.0)
    docker_crashes.save(tmp_path / "new", crashes)
    assert docker_crashes.load(tmp_path / "new", 3) == crashes
    assert docker_crashes.load(tmp_path / "new", 4) == Crashes(4)
    (tmp_path / "new/crashes.json").write_text("{")
    assert docker_crashes.load(tmp_path / "new", 3) == Crashes(3)


def test_a_message_has_its_stamp_taken_off() -> None:
    """Text that looks like nothing of the engine's stays whole."""
    assert stamped(f"{_STAMP} hello world\n".encode()) == (_STAMP, b"hello world\n")
    assert stamped(b"hello world\n") == ("", b"hello world\n")


def test_a_stamp_becomes_what_the_engine_understands() -> None:
    """Seconds since the epoch with all nanoseconds."""
    assert Position("c", stamp=_STAMP).since == "1795242403.193123456"


def _message(second: int, text: str) -> bytes:
    return f"2026-11-21T06:26:{second:02}.000000000Z {text}\n".encode()


def test_a_copy_goes_on_without_gap_or_repetition(tmp_path: Path) -> None:
    """The engine sends the last second again, of which some was copied and some was not."""
    first = Copy(tmp_path, "c")
    first.append([_message(1, "a"), _message(2, "b"), _message(2, "c")])
    first.close()
    second = Copy(tmp_path, "c")
    second.append([_message(2, "b"), _message(2, "c"), _message(2, "d"), _message(3, "e")])
    second.close()
    assert read_at(str(tmp_path), 0)[1] == b"a\nb\nc\nd\ne\n"


def test_a_copy_killed_before_it_kept_its_position_skips_what_is_there(tmp_path: Path) -> None:
    """What was appended after the position was kept comes again and is not appended again."""
    first = Copy(tmp_path, "c")
    first.append([_message(1, "a")])
    kept = (tmp_path / "position.json").read_bytes()
    first.append([_message(2, "b"), _message(3, "c")])
    first.close()
    (tmp_path / "position.json").write_bytes(kept)
    second = Copy(tmp_path, "c")
    second.append([_message(1, "a"), _message(2, "b"), _message(3, "c"), _message(4, "d")])
    second.close()
    assert read_at(str(tmp_path), 0)[1] == b"a\nb\nc\nd\n"


def test_a_copy_whose_files_were_removed_goes_on(tmp_path: Path) -> None:
    """What somebody removed is gone; nothing that comes is left out for it."""
    first = Copy(tmp_path, "c")
    first.append([_message(1, "a line")])
    first.close()
    for path in tmp_path.glob("*.log"):
        path.unlink()
    second = Copy(tmp_path, "c")
    second.append([_message(2, "first"), _message(3, "second, a longer one")])
    second.close()
    assert read_at(str(tmp_path), 0)[1] == b"first\nsecond, a longer one\n"


def test_another_container_is_copied_from_its_beginning(tmp_path: Path) -> None:
    """The position of an earlier start's container says nothing about this one."""
    for container in ("one", "two"):
        copy = Copy(tmp_path, container)
        copy.append([_message(1, container)])
        copy.close()
    assert read_at(str(tmp_path), 0)[1] == b"one\ntwo\n"


def test_a_network_never_overlaps_another() -> None:
    """The first free part of the pool is taken, and a full pool is an error that names it."""
    networks = Networks(DockerEngine(), "instance", "10.0.0.0/26")
    taken = [{"IPAM": {"Config": [{"Subnet": f"10.0.0.{start}/28"}]}} for start in (0, 16, 48)]
    assert str(networks._free([*taken, {"IPAM": {"Config": None}}])) == "10.0.0.32/28"
    with pytest.raises(LimitExceeded, match=r"10\.0\.0\.0/26"):
        networks._free([{"IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}}])


def test_what_a_newer_build_kept_is_read_by_an_older_one(tmp_path: Path) -> None:
    """A field that it does not know is left out: the deaths before it still count."""
    crashes = Crashes(generation=3, restarts=4, notices=("a clone failed",))
    docker_crashes.save(tmp_path, crashes)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("{", '{"of_tomorrow":[1],', 1))
    assert docker_crashes.load(tmp_path, 3) == crashes
