"""The hash of a zip that is what its directory says, and the refusal of any other."""

import hashlib
import io
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from typing import IO

import pytest

from mooring.goproxy.dirhash import of_zip, summary
from mooring.goproxy.faults import BadZip

PREFIX = "example.com/m@v1.0.0/"
CHUNK = 256 * 1024


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of a module."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(PREFIX + name, content)
    return file.getvalue()


def expected(data: bytes) -> str:
    """The hash by another way; raises what `zipfile` does for damage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return summary((name, hashlib.sha256(archive.read(name)).hexdigest()) for name in archive.namelist())


def hashed(data: bytes) -> str:
    """As the proxy finds it, in memory and in a file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        results = [_result(io.BytesIO(data)), _result(file)]
    assert results[0] == results[1]
    if results[0] is None:
        raise BadZip("in both")
    return results[0]


def _result(file: IO[bytes]) -> str | None:
    try:
        return of_zip(file, PREFIX)
    except BadZip:
        return None


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_files_of_all_sizes_and_contents(method: int) -> None:
    """Empty ones, those of a chunk and around it, what packs well and what does not."""
    chance = random.Random(1)  # noqa: S311 - the same each time
    sizes = [0, 1, 2, 100, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]
    files = {f"zeros{size}": bytes(size) for size in sizes}
    files |= {f"noise{size}": chance.randbytes(size) for size in sizes}
    files |= {f"words{size}": (b"package words // " * size)[:size] for size in sizes}
    data = packed(files, method)
    assert hashed(data) == expected(data)


def test_what_unpacks_to_just_a_part_or_a_little_more() -> None:
    """The unpacker holds bytes back where a part's limit falls into a match."""
    for extra in range(-3, 300, 7):
        data = packed({"a": b"0123456789" * ((CHUNK + extra) // 10) + b"x" * 5, "b": bytes(2 * CHUNK + extra)})
        assert hashed(data) == expected(data)


def test_names_in_utf8() -> None:
    """The directory says that they are."""
    data = packed({"grüße.go": b"package m", "日本/x.go": b"package x"})
    assert hashed(data) == expected(data)


def changed(data: bytes, at: int, to: bytes) -> bytes:
    """With other bytes at a place."""
    return data[:at] + to + data[at + len(to) :]


def in_directory(data: bytes, offset: int, to: bytes) -> bytes:
    """With a field of the first file's entry in the directory set."""
    return changed(data, data.index(b"PK\1\2") + offset, to)


HELLO = {"go.mod": b"module example.com/m\n", "hello.go": b"package m // hello hello hello hello\n"}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: in_directory(data, 16, b"\0\0\0\0"), id="its checksum"),
        pytest.param(lambda data: in_directory(data, 24, struct.pack("<I", 20)), id="less than there is"),
        pytest.param(lambda data: in_directory(data, 20, struct.pack("<I", 5)), id="cut off"),
        pytest.param(lambda data: in_directory(data, 20, struct.pack("<I", 90)), id="reaches into the next one"),
        pytest.param(lambda data: in_directory(data, 8, struct.pack("<H", 1)), id="encrypted"),
        pytest.param(lambda data: in_directory(data, 8, struct.pack("<H", 32)), id="a patch"),
        pytest.param(lambda data: in_directory(data, 10, struct.pack("<H", 12)), id="packed by bzip2"),
        pytest.param(lambda data: in_directory(data, 10, struct.pack("<H", 14)), id="packed by LZMA"),
        pytest.param(lambda data: in_directory(data, 42, struct.pack("<I", 3)), id="at a place where no file is"),
        pytest.param(lambda data: in_directory(data, 42, struct.pack("<I", 2**31)), id="beyond the end"),
        pytest.param(lambda data: changed(data, data.index(b"go.mod"), b"go.sum"), id="another file's name"),
    ],
)
def test_what_the_directory_says_is_false(damage: Callable[[bytes], bytes]) -> None:
    """Each of its fields that counts."""
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with pytest.raises(BadZip):
            hashed(damage(packed(HELLO, method)))


def far_away(place: int) -> bytes:
    """A zip whose first file is said to be at that place, as a large one says it (zip64)."""
    data = packed(HELLO)
    entry = data.index(b"PK\1\2")
    name_length = int.from_bytes(data[entry + 28 : entry + 30], "little")
    extra = struct.pack("<HHQ", 1, 8, place)
    data = changed(changed(data, entry + 30, struct.pack("<H", len(extra))), entry + 42, b"\xff\xff\xff\xff")
    after = entry + 46 + name_length
    end = data.index(b"PK\5\6")
    directory = int.from_bytes(data[end + 12 : end + 16], "little")
    data = changed(data, end + 12, struct.pack("<I", directory + len(extra)))
    return data[:after] + extra + data[after:]


@pytest.mark.parametrize("place", [2**33, 2**45, 2**62, 2**64 - 1])
def test_a_file_where_no_file_can_be(place: int) -> None:
    """File systems differ in which places they find strange."""
    with pytest.raises(BadZip):
        hashed(far_away(place))


def test_a_large_zip_says_where_its_files_are_in_another_way() -> None:
    """The place is right: only then does the test above say anything."""
    assert hashed(far_away(0)) == hashed(packed(HELLO))


def test_two_entries_of_one_file() -> None:
    """A small file that unpacks to very much, many times over."""
    data = packed({"a.go": bytes(1000), "b.go": bytes(1000)})
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    with pytest.raises(BadZip):
        hashed(changed(data, second + 42, struct.pack("<I", 0)))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_any_byte_changed_is_refused_or_hashed(method: int) -> None:
    """No damage is an error of ours: `zipfile` has several of its own for it."""
    data = packed(HELLO, method)
    refused = 0
    for at in range(len(data)):
        for to in (0, 255, data[at] ^ 1, data[at] ^ 0x80):
            try:
                hashed(changed(data, at, bytes([to])))
            except BadZip:
                refused += 1
    assert refused > len(data)
