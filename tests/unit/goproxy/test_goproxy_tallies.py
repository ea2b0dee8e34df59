"""Counts of pulls and failures: bounded in memory, and kept across a restart."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, InvalidInput, Unavailable
from mooring.goproxy import tallies as module
from mooring.goproxy.catalog import Catalog
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.pins import Pins
from mooring.goproxy.tallies import Tallies, kept
from mooring.goproxy.telemetry import Served, Telemetry
from support.nobody import begun_by_root


def test_memory_is_bounded() -> None:
    """However many modules, subjects and failures there are, and however much an upstream says."""
    tallies = Tallies()
    for number in range(module.MODULES + 5):
        tallies.pulled(f"example.com/{number}", "ann")
    for number in range(module.SUBJECTS + 5):
        tallies.pulled("example.com/0", f"user-{number}")
    for number in range(module.ERRORS + 5):
        tallies.failed("example.com/x", f"example.com/x@v1.0.{number}", "unavailable", "x" * 10**6)
    assert len(tallies.pulls) == module.MODULES
    assert "example.com/1" not in tallies.pulls
    assert tallies.pulls["example.com/0"].requests == module.SUBJECTS + 5
    newest = [f"user-{number}" for number in range(5, module.SUBJECTS + 5)]
    assert list(tallies.pulls["example.com/0"].subjects) == newest
    assert len(tallies.errors) == module.ERRORS
    assert len(tallies.dump()) < 3 * 10**6


async def test_counts_outlive_the_process(tmp_path: Path) -> None:
    """What was counted is there after a restart, with the time since when; a second process does not overwrite it."""
    file = tmp_path / "tallies"
    first = Tallies()
    async with Tasks("one") as tasks, kept(first, file, tasks):
        first.ended("hit", 3)
        first.pulled("example.com/x", "ann", missed=True)
        first.failed("example.com/x", "example.com/x@list", "unavailable", "no answer")
        other = Tallies()
        async with kept(other, file, tasks):
            other.ended("miss", 99)
    second = Tallies()
    async with Tasks("two") as tasks, kept(second, file, tasks):
        assert second.since == first.since
        assert second.outcomes == {"hit": 3}
        assert second.pulls == first.pulls
        assert second.errors == first.errors
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tallies", "tallies.lock"]


async def test_counts_that_a_killed_process_of_root_began_stop_nobody() -> None:
    """The user that serves could not write over them, in a folder of its own."""
    with begun_by_root("tallies") as file:
        tallies = Tallies()
        async with Tasks("one") as tasks, kept(tallies, file, tasks):
            tallies.ended("hit", 3)
        assert counted(file.read_bytes().splitlines()).outcomes == {"hit": 3}


async def test_counts_of_who_came_second_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the process that keeps its counts has ended, another one saves its own together with them."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    file = tmp_path / "tallies"
    first, second = Tallies(), Tallies()
    async with Tasks("second") as tasks, AsyncExitStack() as ending:
        async with kept(first, file, tasks):
            first.ended("hit", 3)
            for number in range(module.SUBJECTS):
                first.pulled("example.com/x", f"user-{number}")
            first.failed("example.com/x", "example.com/x@list", "unavailable", "no answer")
            await ending.enter_async_context(kept(second, file, tasks))
            second.ended("hit", 2)
            for subject in ("ann", "user-0"):
                second.pulled("example.com/x", subject, missed=True)
            second.failed("example.com/x", "example.com/x@list", "unavailable", "still none")
            await asyncio.sleep(0.05)
            assert second.outcomes == {"hit": 2}
        async with asyncio.timeout(20):
            while second.outcomes["hit"] != 5:
                await asyncio.sleep(0.01)
    found = counted(file.read_bytes().splitlines())
    pulls = found.pulls["example.com/x"]
    assert (found.outcomes, found.since) == ({"hit": 5}, first.since)
    assert (pulls.requests, pulls.misses) == (module.SUBJECTS + 2, 2)
    assert list(pulls.subjects.items())[-2:] == [("ann", 1), ("user-0", 2)]
    assert len(pulls.subjects) == module.SUBJECTS
    assert [(failure.why, failure.times) for failure in found.errors.values()] == [("still none", 2)]


async def test_counts_are_saved_when_the_process_is_told_to_end(tmp_path: Path) -> None:
    """A role ends by being cancelled, and its counts are saved all the same."""
    tallies = Tallies()

    async def serve(tasks: Tasks) -> None:
        async with kept(tallies, tmp_path / "tallies", tasks):
            tallies.ended("hit")
            await asyncio.Event().wait()

    async with Tasks("role") as tasks:
        _ = tasks.spawn("serve", serve(tasks))
        async with asyncio.timeout(20):
            while not tallies.outcomes:
                await asyncio.sleep(0.01)
    again = Tallies()
    again.load((tmp_path / "tallies").read_bytes())
    assert again.outcomes == {"hit": 1}


def counted(lines: list[bytes]) -> Tallies:
    """What a process finds that reads these lines."""
    found = Tallies()
    for line in lines:
        found.load(line)
    return found


def test_what_changed_is_added_to_what_was_saved() -> None:
    """Behind all counts those that changed since are enough, each as it is then; what did not change is not written."""
    tallies = Tallies()
    tallies.pulled("example.com/x", "ann", missed=True)
    tallies.pulled("example.com/y", "ann")
    tallies.ended("miss", 2)
    lines = [tallies.dump()]
    tallies.saved()
    assert tallies.news() == b""
    tallies.pulled("example.com/x", "bob")
    tallies.ended("hit")
    tallies.failed("example.com/x", "example.com/x@list", "unavailable", "no answer")
    lines.append(tallies.news())
    assert tallies.news() == lines[1]
    tallies.saved()
    tallies.pulled("example.com/z", "ann")
    lines.append(tallies.news())
    assert b"example.com/y" not in b"".join(lines[1:])
    found = counted(lines)
    assert list(found.pulls.items()) == [(name, tallies.pulls[f"example.com/{name[-1]}"]) for name in found.pulls]
    assert list(found.pulls) == ["example.com/y", "example.com/x", "example.com/z"]
    assert (found.outcomes, found.errors, found.since) == (tallies.outcomes, tallies.errors, tallies.since)


async def saved_lines(file: Path, number: int) -> bytes:
    """The file, once it has so many lines."""
    async with asyncio.timeout(20):
        while not file.exists() or file.read_bytes().count(b"\n") < number:
            await asyncio.sleep(0.01)
    return file.read_bytes()


async def test_a_kill_at_any_byte_loses_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is cut off anywhere all whole lines count."""
    monkeypatch.setattr(module, "_SAVE_EVERY_S", 0.01)
    tallies, file = Tallies(), tmp_path / "tallies"
    async with Tasks("one") as tasks, kept(tallies, file, tasks):
        for number in (1, 2, 3):
            tallies.ended("hit")
            tallies.pulled("example.com/x", "ann")
            content = await saved_lines(file, number)
    ends = [at for at, byte in enumerate(content) if byte == ord("\n")]
    for end in range(len(content) + 1):
        file.write_bytes(content[:end])
        found = Tallies()
        async with Tasks("again") as tasks, kept(found, file, tasks):
            whole = sum(at <= end for at in ends)
            assert found.outcomes["hit"] == whole
            assert not whole or found.pulls["example.com/x"].requests == whole


async def test_the_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is some times as long as all counts it is written anew, and nothing else is left in the folder."""
    monkeypatch.setattr(module, "_SAVE_EVERY_S", 0.001)
    monkeypatch.setattr(module, "_ANEW_BYTES", 2000)
    tallies, file, longest = Tallies(), tmp_path / "tallies", 0
    (tmp_path / ".tallies.new").write_bytes(b"of a process that was killed")
    async with Tasks("one") as tasks, kept(tallies, file, tasks):
        for number in range(200):
            tallies.pulled(f"example.com/{number % 3}", "ann")
            await asyncio.sleep(0.002)
            longest = max(longest, file.stat().st_size if file.exists() else 0)
    assert longest < 2000 + 3 * len(tallies.dump())
    found = counted(file.read_bytes().splitlines())
    assert sum(pulls.requests for pulls in found.pulls.values()) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tallies", "tallies.lock"]


async def test_a_file_that_is_none_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    """Counting begins anew after rubbish, and a folder that cannot be written is only a loss of counts."""
    file = tmp_path / "tallies"
    file.write_bytes(b'{"outcomes": ["rubbish"')
    tallies = Tallies()
    async with Tasks("one") as tasks, kept(tallies, file, tasks):
        tallies.ended("hit")
    again = Tallies()
    async with Tasks("two") as tasks, kept(again, file, tasks):
        assert again.outcomes == {"hit": 1}
    async with Tasks("three") as tasks, kept(again, tmp_path / "no/such/folder", tasks):
        again.ended("hit")


def test_what_is_counted_of_a_request() -> None:
    """Pulls by module and subject, misses, failures with their cause; an absent module is nobody's pull."""
    telemetry = Telemetry(Tallies())
    wanted = ask("example.com/x", "v1.0.0", Kind.zip)
    absent = ask("example.com/none", "v1.0.0", Kind.info)
    for request in (
        Served(wanted, "ann", 200, "miss", 0.1),
        Served(wanted, "ann", 200, "hit", 0.1),
        Served(absent, "ann", 404, "not_found", 0.1, "not found"),
        Served(wanted, "bob", 502, "bad_upstream", 0.1, "it sent a page"),
        Served(None, "bob", 404, "not_found", 0.1),
    ):
        telemetry.served(request)
    tallies = telemetry.tallies
    assert tallies.outcomes == {"miss": 1, "hit": 1, "not_found": 1, "bad_upstream": 1}
    assert tallies.hit_rate == 0.5
    assert list(tallies.pulls) == ["example.com/x"]
    pulls = tallies.pulls["example.com/x"]
    assert (pulls.requests, pulls.misses, pulls.subjects) == (3, 1, {"ann": 2, "bob": 1})
    (failure,) = tallies.errors.values()
    assert (failure.module, failure.what, failure.code) == ("example.com/x", "example.com/x@v1.0.0", "bad_upstream")
    assert failure.why == "it sent a page"


async def test_no_pin_is_lost_among_many(tmp_path: Path) -> None:
    """Pins that are made at the same time are all there afterwards."""
    pins = [Pins(tmp_path / "pins") for _ in range(2)]
    async with Tasks("pins") as tasks:
        made = [tasks.spawn(str(n), pins[n % 2].add(f"example.com/{n}")) for n in range(30)]
        for task in made:
            await task
    assert len(await pins[0].all()) == 30


async def test_a_pin_that_would_protect_nothing_is_refused(tmp_path: Path) -> None:
    """What can be no module, version or pattern of them is an error; what covers many is none."""
    pins = Pins(tmp_path / "pins")
    right = [
        "*.example.com/x@v2.0.0", "*/[!a-c]/x?", "corp*", "example.com", "example.com/api/v1", "example.com/team/*",
        "example.com/x", "example.com/x@v1.0.0", "example.com/x@v2.0.0", "gopkg.in/team",
    ]  # fmt: skip
    for pin in right:
        await pins.add(pin)
    wrong = ["@v1.0.0", "a b", "corp", "/", *(f"example.com/x@{version}" for version in ("", "v1", "main"))]
    wrong += [f"example.com/{element}" for element in ("x[", "x[]", "x[!]", "[*", "*/..", "/*", "x.", "con")]
    for pin in wrong:
        with pytest.raises(InvalidInput):
            await pins.add(pin)
    assert await pins.all() == right


async def test_what_a_wider_pin_covers_stays_pinned(tmp_path: Path) -> None:
    """Nobody is told that a module is not pinned while a pattern keeps it; the pin itself is gone."""
    pins = Pins(tmp_path / "pins")
    for pin in ("example.com/*", "example.com/x@v1.0.0"):
        await pins.add(pin)
    with pytest.raises(Conflict, match=r"example.com/x@v1.0.0 stays pinned by example.com/\*: unpin that one"):
        await pins.remove("example.com/x@v1.0.0")
    assert await pins.all() == ["example.com/*"]
    await pins.remove("example.com/*")
    assert await pins.all() == []


async def test_pins_that_cannot_be_read_are_no_lack_of_pins(tmp_path: Path) -> None:
    """Nothing is evicted while nobody knows what is pinned."""
    (tmp_path / "pins").write_bytes(b"example.com/x\n\xff\xfe\n")
    with pytest.raises(Unavailable, match="pins cannot be read"):
        await Pins(tmp_path / "pins").all()


async def test_a_name_that_is_no_text_hides_nothing(tmp_path: Path) -> None:
    """A file that somebody copied into the store, and that nobody can ask for, leaves the catalog as it was."""
    store = DiskStore(tmp_path)
    store.prepare()
    await store.put("example.com/x/@v/v1.0.0.info", b'{"Version":"v1.0.0"}')
    (tmp_path / "cache/download" / os.fsdecode(b"\xff.info")).write_bytes(b"x")
    (kept,) = await Catalog(store, SystemClock()).all()
    assert kept.module == "example.com/x"
