"""The file source on real files."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from mooring.discovery.file import FileSource, parse
from mooring.errors import InvalidInput
from mooring.settings import FileSource as FileSettings
from support.following import following, until

ONE = "routes:\n- name: one\n  host: one.localhost\n  backends:\n  - address: 127.0.0.1:4000\n"
TWO = ONE + "- name: two\n  host: two.localhost\n  state: stopped\n"


def source(path: Path, *, look_every_s: float = 0.2) -> FileSource:
    """The source of that file."""
    return FileSource(FileSettings(path=path, look_every_s=look_every_s))


def write(path: Path, text: str) -> None:
    """Write in place, as an editor does that keeps the inode."""
    path.write_text(text)


async def test_a_changed_file_is_a_new_section(tmp_path: Path) -> None:
    """A file written in place is published whole each time, and nothing when its content is the same."""
    path = tmp_path / "routes.yaml"
    write(path, ONE)
    async with following(source(path)) as followed:
        await until(lambda: set(followed.routes) == {"one"})
        write(path, TWO)
        await until(lambda: set(followed.routes) == {"one", "two"})
        write(path, TWO)
        write(path, "routes: []\n")
        await until(lambda: not followed.routes)
        assert all(change.complete for change in followed.changes)
        assert len(followed.changes) == 3


async def test_a_file_replaced_by_a_rename_is_seen_again_and_again(tmp_path: Path) -> None:
    """The folder is watched, so that the second replacement is seen as the first was."""
    path = tmp_path / "routes.yaml"
    write(path, ONE)
    # No look by the clock within the test: only the kernel's announcement can bring the change.
    async with following(source(path, look_every_s=3600)) as followed:
        await until(lambda: set(followed.routes) == {"one"})
        for expected, text in (({"one", "two"}, TWO), ({"one"}, ONE), ({"one", "two"}, TWO)):
            write(tmp_path / "new", text)
            (tmp_path / "new").rename(path)
            await until(lambda expected=expected: set(followed.routes) == expected)


async def test_a_linked_file_is_followed_to_another_target(tmp_path: Path) -> None:
    """A link that is pointed elsewhere (a mounted configuration map does that) is a change, by the clock at least."""
    write(tmp_path / "a.yaml", ONE)
    write(tmp_path / "b.yaml", TWO)
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "routes.yaml"
    path.symlink_to(tmp_path / "a.yaml")
    async with following(source(path)) as followed:
        await until(lambda: set(followed.routes) == {"one"})
        (folder / "next").symlink_to(tmp_path / "b.yaml")
        (folder / "next").rename(path)
        await until(lambda: set(followed.routes) == {"one", "two"})


async def test_a_bad_file_keeps_the_last_section_and_grows_stale(tmp_path: Path) -> None:
    """The problem names file, route and key; the age rises until the file is good again."""
    path = tmp_path / "routes.yaml"
    write(path, ONE)
    async with following(source(path)) as followed:
        await until(lambda: followed.routes)
        write(path, TWO.replace("state: stopped", "state: sleeping"))
        await until(followed.source.problems)
        (problem,) = followed.source.problems()
        assert all(part in problem for part in (str(path), "routes.1 (two)", "state"))
        begun = followed.source.stale_s()
        await until(lambda: followed.source.stale_s() > begun + 0.5)
        assert set(followed.routes) == {"one"}
        write(path, TWO)
        await until(lambda: not followed.source.problems() and followed.source.stale_s() < 0.5)
        assert set(followed.routes) == {"one", "two"}


async def test_a_file_that_goes_away_keeps_its_routes(tmp_path: Path) -> None:
    """A deleted file, and even a deleted folder, is a problem and no empty section; both may come back."""
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "routes.yaml"
    write(path, ONE)
    async with following(source(path)) as followed:
        await until(lambda: followed.routes)
        path.unlink()
        await until(followed.source.problems)
        folder.rmdir()
        assert set(followed.routes) == {"one"}
        folder.mkdir()
        write(path, TWO)
        await until(lambda: set(followed.routes) == {"one", "two"})


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """Before it exists nothing is published, and the age is infinite."""
    path = tmp_path / "later" / "routes.yaml"
    async with following(source(path)) as followed:
        await until(followed.source.problems)
        assert followed.source.stale_s() == float("inf")
        assert followed.changes == []
        path.parent.mkdir()
        write(path, ONE)
        await until(lambda: followed.routes)


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
async def test_what_is_no_file_is_a_problem(tmp_path: Path, kind: str) -> None:
    """It does not end the source, and nobody waits for a pipe that has no writer."""
    path = tmp_path / "routes.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    async with following(source(path)) as followed:
        await until(followed.source.problems)
        (path.rmdir if kind == "folder" else path.unlink)()
        write(path, ONE)
        await until(lambda: followed.routes)


async def test_to_look_at_a_folder_leaves_nothing_open(tmp_path: Path) -> None:
    """As long as one stands in the file's place it is looked at every second or so: the process would run out."""
    path = tmp_path / "routes.yaml"
    path.mkdir()
    async with following(source(path, look_every_s=0.02)) as followed:
        await until(followed.source.problems)
        before = len(list(Path("/proc/self/fd").iterdir()))
        await asyncio.sleep(0.5)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
        assert "no regular file" in str(followed.source.problems())


async def test_a_mistake_stays_one_until_the_file_changes(tmp_path: Path) -> None:
    """Looked at again and again, the same text is still wrong; the text of before is right again."""
    path = tmp_path / "routes.yaml"
    write(path, ONE)
    async with following(source(path, look_every_s=0.05)) as followed:
        await until(lambda: followed.routes)
        write(path, "routes: [")
        await until(followed.source.problems)
        path.unlink()
        await until(lambda: "No such file" in str(followed.source.problems()))
        write(path, "routes: [")
        await until(lambda: ".yaml:2: " in str(followed.source.problems()))
        write(path, ONE)
        await until(lambda: not followed.source.problems())
        assert set(followed.routes) == {"one"}


async def test_a_file_beyond_all_reason_is_not_read(tmp_path: Path) -> None:
    """To read 50 MB of YAML takes minutes and gigabytes: the problem says how large a file may be."""
    path = tmp_path / "routes.yaml"
    write(path, ONE)
    async with following(source(path)) as followed:
        await until(lambda: followed.routes)
        os.truncate(path, 50 * 2**20)
        await until(lambda: "larger than" in str(followed.source.problems()))
        assert set(followed.routes) == {"one"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["must hold the one key routes"]),
        ("rutes: []", ["must hold the one key routes"]),
        ("routes: []\nmore: 1", ["must hold the one key routes"]),
        ("routes: {}", ["must hold the one key routes"]),
        ("routes: [", [".yaml:2: did not find expected node content"]),
        ("routes:\n- 1", ["routes.0", "object"]),
        ("routes:\n- name: a", ["routes.0 (a)", "needs backends"]),
        ("routes:\n- name: a\n  nmae: b", ["routes.0 (a)", "nmae"]),
        ("routes:\n- name: a\n  name: b", [".yaml:3: ", "'name' stands twice"]),
        ("routes:\n- name: a\n  backends: [{address: nowhere}]", ["routes.0 (a)", "backends.0.address", "host:port"]),
        ("routes:\n- name: a\n  state: stopped\n  path: /a/../b", ["path", "dot segment"]),
        ("routes:\n- name: a\n  state: stopped\n  path: /.mooring/x", ["path", "reserved"]),
        ("routes:\n- name: a\n  state: stopped\n  host: 'a;b'", ["host", "host name"]),
        ("routes:\n- name: a\n  state: stopped\n  order: .nan", ["order"]),
        ("routes:\n- {name: a, state: stopped}\n- {name: a, state: stopped}", ["routes.1 (a)", "this name"]),
        ("routes:\n- !!python/object/apply:os.system [id]", ["could not determine a constructor"]),
        ("routes:\n- name: !!binary aGk=", ["routes.0"]),
        ("routes: " + "[" * 20000, []),
    ],
)
def test_a_bad_document_says_where(text: str, parts: list[str]) -> None:
    """Every mistake is an InvalidInput that names the file, and the route and key where there is one."""
    with pytest.raises(InvalidInput) as caught:
        parse(text.encode(), "routes.yaml")
    assert caught.value.detail.startswith("routes.yaml:")
    assert all(part in caught.value.detail for part in parts), caught.value.detail


def test_bytes_that_are_no_text_are_refused() -> None:
    """A binary file is a clear error."""
    with pytest.raises(InvalidInput, match=r"routes\.yaml"):
        parse(os.urandom(64).replace(b"\n", b"") + b"\x00\xff", "routes.yaml")


def test_a_large_file_is_read_in_seconds() -> None:
    """Two thousand routes cost well below what a person waits for."""
    text = "routes:\n" + "".join(
        f"- name: r{n}\n  host: r{n}.localhost\n  backends: [{{address: '127.0.0.1:{n + 1}'}}]\n" for n in range(2000)
    )
    assert len(parse(text.encode(), "f")) == 2000
