"""The bare clones of private repositories have a bound: the ones that were used longest ago go, and come again."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy.flight import Once
from mooring.goproxy.gocommand import Credentials, GoCommand, Limits
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.vcs import VersionControl
from support.gitserver import GitServer
from support.goupstream import go


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    """Three repositories with some 200 KB each."""
    with GitServer(tmp_path / "git").serving() as served:
        for name in "abc":
            served.publish(name, "v1.0.0", {"data": secrets.token_hex(200_000)})
        yield served


def command(tmp_path: Path, git: GitServer, clones_bytes: int) -> GoCommand:
    """The go command, ready to read them."""
    credentials = git.credentials()
    limits = Limits(clones_bytes=clones_bytes)
    found = GoCommand(go(), tmp_path / "vcs", os.environ["PATH"], credentials, limits)  # noqa: TID251 - a real program
    found.prepare()
    return found


async def zip_of(control: VersionControl, git: GitServer, name: str) -> int:
    """The bytes of a module's zip."""
    async with control.zip(ask(git.module(name), "v1.0.0", Kind.zip)) as download:
        return sum([len(chunk) async for chunk in download.chunks])


async def test_clones_that_nobody_used_go_and_come_again(tmp_path: Path, git: GitServer) -> None:
    """Beyond the limit the clone that was used longest ago goes; a request for its module makes it once more."""
    go_command = command(tmp_path, git, clones_bytes=600_000)
    clones = go_command.clones
    async with Tasks("test") as tasks:
        control = VersionControl(go_command, Once(tasks))
        for name in "ab":
            assert await zip_of(control, git, name)
        assert await control.shrink() == []
        first, second = clones.all()
        for age, clone in enumerate((second, first), 1):
            os.utime(clone.folder.with_suffix(".info"), (age * 1000, age * 1000))
        assert await zip_of(control, git, "b")
        assert await zip_of(control, git, "c")
        gone = await control.shrink()
        assert [clone.folder for clone in gone] == [first.folder]
        assert not first.folder.exists()
        assert second.folder.exists()
        assert sum(clone.size for clone in clones.all()) <= 600_000
        assert await zip_of(control, git, "a")
        assert len(clones.all()) == 3


async def test_what_a_killed_process_set_aside_goes(tmp_path: Path, git: GitServer) -> None:
    """It is no clone any more, and would count for no limit: the next process removes it when it starts."""
    go_command = command(tmp_path, git, clones_bytes=2**30)
    left = tmp_path / "vcs/modcache/cache/vcs/abc.gone-0123"
    (left / "objects").mkdir(parents=True)
    async with Tasks("test") as tasks, asyncio.timeout(10):
        tasks.forever("clones", VersionControl(go_command, Once(tasks)).bound())
        while left.exists():
            await asyncio.sleep(0.01)


async def test_what_a_killed_run_left_goes(tmp_path: Path, git: GitServer) -> None:
    """A zip that nobody took, what was unpacked of it, and the locks of git, for which the next fetch would fail."""
    go_command = command(tmp_path, git, clones_bytes=2**30)
    async with Tasks("test") as tasks:
        control = VersionControl(go_command, Once(tasks))
        _ = await go_command.run("mod", "download", "-json", f"{git.module('a')}@v1.0.0")
        (clone,) = go_command.clones.all()
        (clone.folder / "shallow.lock").touch()
        (clone.folder / "refs/tags/v1.1.0.lock").touch()
        named_so = go_command.modcache / "cache/download/git.example.com/a.tmp/x.zip/@v/v1.0.0.mod"
        named_so.parent.mkdir(parents=True)
        named_so.touch()
        go_command.sweep()
        assert named_so.exists()
        files = [file for file in go_command.modcache.rglob("*") if file.is_file()]
        assert [file for file in files if file.suffix in (".zip", ".ziphash", ".go")] == []
        assert [path.name for path in go_command.modcache.iterdir()] == ["cache"]
        git.publish("a", "v1.1.0")
        assert await control.small(ask(git.module("a"), "v1.1.0", Kind.mod))
        assert [clone.folder for clone in go_command.clones.all()] == [clone.folder]


async def test_nothing_that_is_being_read_goes(tmp_path: Path, git: GitServer) -> None:
    """A sweep, here or in another process, leaves a zip that is on its way into the store."""
    go_command = command(tmp_path, git, clones_bytes=2**30)
    async with Tasks("test") as tasks:
        control = VersionControl(go_command, Once(tasks))
        async with control.zip(ask(git.module("a"), "v1.0.0", Kind.zip)) as download:
            go_command.sweep()
            assert sum([len(chunk) async for chunk in download.chunks]) == download.size


async def test_another_process_takes_no_netrc_away(tmp_path: Path, git: GitServer) -> None:
    """Work on the store that is given no credentials, or others, leaves those of who serves it."""
    go_command = command(tmp_path, git, clones_bytes=2**30)
    for other in (Credentials(), git.credentials("another")):
        replace(go_command, credentials=other).prepare()
    async with Tasks("test") as tasks:
        assert await zip_of(VersionControl(go_command, Once(tasks)), git, "a")


async def test_no_clone_goes_below_a_run(tmp_path: Path, git: GitServer) -> None:
    """While another process runs the go command every clone stays; afterwards they go."""
    go_command = command(tmp_path, git, clones_bytes=0)
    async with Tasks("test") as tasks:
        control = VersionControl(go_command, Once(tasks))
        assert await zip_of(control, git, "a")
        held = go_command.clones.hold()
        assert await control.shrink() == []
        assert len(go_command.clones.all()) == 1
        os.close(held)
        assert len(await control.shrink()) == 1
        assert go_command.clones.all() == []
        assert not list((tmp_path / "vcs/modcache/cache/vcs").glob("*.gone-*"))
        assert await zip_of(control, git, "a")
