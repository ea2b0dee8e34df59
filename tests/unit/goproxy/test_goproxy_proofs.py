"""Hashes, signed notes and the transparency log: right ones are accepted, every changed one is not."""

import base64
import io
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import InvalidInput, Misconfigured, NotFound
from mooring.goproxy import dirhash, tlog
from mooring.goproxy.faults import BadNote, BadTree, BadZip
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.note import Signer, check, parse_signer, parse_verifier
from mooring.goproxy.tlog import Tile, Tree

# The example of the format's own documentation.
DOCUMENTED_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
DOCUMENTED_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def zipped(*files: tuple[str, bytes]) -> io.BytesIO:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out


def test_the_documented_note_is_accepted() -> None:
    """A note of the format's documentation verifies with the key there."""
    assert check(DOCUMENTED_NOTE, parse_verifier(DOCUMENTED_KEY)).startswith("If you think")


@given(st.integers(0, len(DOCUMENTED_NOTE) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_note_is_accepted(at: int, flip: int) -> None:
    """Whichever byte of text or signature is changed, the text is not believed to be something else."""
    changed = bytearray(DOCUMENTED_NOTE)
    changed[at] ^= flip
    try:
        text = check(bytes(changed), parse_verifier(DOCUMENTED_KEY))
    except BadNote:
        return
    assert text == DOCUMENTED_NOTE.decode().partition("\n\n")[0] + "\n"


def test_keys_go_back_and_forth() -> None:
    """A key that was made signs notes that its public half verifies; others do not; a damaged key is refused."""
    signer = Signer.make("sum.example")
    again = parse_signer(signer.text)
    assert check(again.sign("x\n"), parse_verifier(signer.verifier.text)) == "x\n"
    with pytest.raises(BadNote):
        check(again.sign("x\n"), Signer.make("sum.example").verifier)
    with pytest.raises(InvalidInput):
        parse_verifier(signer.verifier.text.replace("sum", "sun"))
    assert base64.b64encode(signer.seed).decode() not in repr(signer)


def test_the_hash_of_a_mod_is_the_documented_one() -> None:
    """The hash of a go.mod is the one that the go command writes into go.sum (taken from a real go.sum's module)."""
    content = b"module github.com/inconshreveable/mousetrap\n\ngo 1.18\n"
    assert dirhash.of_mod(content) == "h1:vpF70FUmC8bwa3OWnCshd2FqLfsEA9PFc4w1p2J65bw="


@pytest.mark.parametrize(
    "files",
    [
        [("other@v1.0.0/x.go", b"x")],
        [("m@v1.0.0/../x.go", b"x")],
        [("m@v1.0.0//x.go", b"x")],
        [("m@v1.0.0/a\\b.go", b"x")],
        [("m@v1.0.0/dir/", b"")],
        [("m@v1.0.0/x.go", b"x"), ("m@v1.0.0/X.go", b"y")],
        [("/etc/passwd", b"x")],
    ],
)
def test_a_zip_with_names_that_break_a_rule_is_refused(files: list[tuple[str, bytes]]) -> None:
    """Names outside the module's prefix, that climb, or that differ in case only."""
    with pytest.raises(BadZip):
        dirhash.of_zip(zipped(*files), "m@v1.0.0/")


@pytest.mark.parametrize(
    ("kept", "in_zip", "same"),
    [
        (b"module m\n", b"module m\r\n", True),
        (b"module m\r\n", b"module m\n", True),
        (b"module m\n", b"module m\n\nrequire n v1.0.0\n", False),
        (b"module m\n", None, True),
        (b"module m\n\nrequire n v1.0.0\n", None, False),
    ],
)
def test_a_mod_is_that_of_its_zip(kept: bytes, in_zip: bytes | None, same: bool) -> None:  # noqa: FBT001 - a table
    """Ends of lines aside; for a zip without one it names the module, and no more."""
    files = [("m@v1.0.0/go.mod", in_zip)] if in_zip is not None else [("m@v1.0.0/sub/go.mod", b"")]
    assert dirhash.same_mod(kept, dirhash.mod_of_zip(zipped(*files), "m@v1.0.0/")) is same


def test_names_are_hashed_as_their_bytes() -> None:
    """A name that is UTF-8 without saying so is hashed as the go command does, by its bytes."""
    said = zipped(("m@v1.0.0/ä.go", b"x")).getvalue()
    unsaid = bytearray(said)
    central = said.index(b"PK\x01\x02")
    unsaid[7] &= 0xF7
    unsaid[central + 9] &= 0xF7
    assert bytes(unsaid) != said
    assert dirhash.of_zip(io.BytesIO(unsaid), "m@v1.0.0/") == dirhash.of_zip(io.BytesIO(said), "m@v1.0.0/")


def test_a_damaged_zip_is_refused() -> None:
    """A zip that is cut or changed anywhere is damaged, or has another hash."""
    whole = zipped(("m@v1.0.0/x.go", b"package x" * 100), ("m@v1.0.0/go.mod", b"module m\n")).getvalue()
    right = dirhash.of_zip(io.BytesIO(whole), "m@v1.0.0/")
    for cut in range(0, len(whole), 7):
        with pytest.raises(BadZip):
            dirhash.of_zip(io.BytesIO(whole[:cut]), "m@v1.0.0/")
    assert right.startswith("h1:")


def test_a_zip_of_too_many_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list of files is not read: a million of them would take a gigabyte of memory before the hash is known."""
    archive = zipped(*((f"m@v1.0.0/{number}", b"") for number in range(1000)))
    assert dirhash.of_zip(archive, "m@v1.0.0/")
    monkeypatch.setattr(dirhash, "MAX_DIRECTORY", 50_000)
    with pytest.raises(BadZip, match="list of files"):
        dirhash.of_zip(archive, "m@v1.0.0/")


def test_a_zip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than a module may have is refused, by what comes out and not by what a header says."""
    monkeypatch.setattr(dirhash, "MAX_ZIP", 100_000)
    with pytest.raises(BadZip, match="unpacks to more"):
        dirhash.of_zip(zipped(("m@v1.0.0/x", b"\0" * 200_000)), "m@v1.0.0/")


@pytest.mark.parametrize(
    "path",
    [
        "tile/8/0/000.p/0",
        "tile/8/0/000.p/256",
        "tile/8/0/x000/001",
        "tile/0/0/000",
        "tile/8/0/1",
        "tile/8/64/000",
        "tile/8/0/000/",
        "tile/8/-1/000",
        "tile/8/0/" + "x999/" * 9 + "999",
    ],
)
def test_a_malformed_tile_is_not_found(path: str) -> None:
    """A tile has exactly one name."""
    with pytest.raises(NotFound):
        tlog.parse_tile(path)


@given(st.integers(1, 12), st.integers(-1, 63), st.integers(0, 10**10), st.data())
def test_tile_names_go_back_and_forth(height: int, level: int, number: int, data: st.DataObject) -> None:
    """Every tile has the name that its name is read as."""
    tile = Tile(height, level, number, data.draw(st.integers(1, 1 << height)))
    assert tlog.parse_tile(tile.path) == tile


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return tlog.EMPTY
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return tlog.node_hash(reference_root(leaves[:split]), reference_root(leaves[split:]))


def test_the_log_is_the_tree_of_the_rfc(tmp_path: Path) -> None:
    """After each append the signed head is that of RFC 6962, and tiles hold the hashes it follows from."""
    ledger = Ledger(tmp_path, "sum.example")
    leaves = []
    for number in range(70):
        text = f"example.com/x v1.0.{number} h1:x\n".encode()
        with ledger.exclusive():
            assert ledger.append([text]) == number
        leaves.append(tlog.leaf_hash(text))
        tree = tlog.parse_tree(check(ledger.head, ledger.signer.verifier))
        assert tree == Tree(number + 1, reference_root(leaves))
    assert ledger.tile(Tile(8, 0, 0, 70)) == b"".join(leaves)
    assert ledger.tile(Tile(3, 1, 0, 8)) == b"".join(reference_root(leaves[i : i + 8]) for i in range(0, 64, 8))
    assert ledger.tile(Tile(8, 0, 0, 71)) is None


def test_the_log_survives_a_kill_at_any_byte(tmp_path: Path) -> None:
    """Whatever was written of an append when it was killed, the log opens with what it had and goes on from there."""
    whole = tmp_path / "whole"
    ledger = Ledger(whole, "sum.example")
    with ledger.exclusive():
        ledger.append([b"a v1.0.0 h1:a\n", b"b v1.0.0 h1:b\n"])
    before = (whole / "records").read_bytes()
    torn = b"c v1.0.0 h1:c\n\nd v1.0.0 h1:d\n\n"
    for length in range(len(torn) + 1):
        folder = tmp_path / f"cut-{length}"
        shutil.copytree(whole, folder)
        (folder / "records").write_bytes(before + torn[:length])
        (folder / ".head.abc").write_bytes(b"half a head")
        again = Ledger(folder, "sum.example")
        assert again.records() == [b"a v1.0.0 h1:a\n", b"b v1.0.0 h1:b\n"]
        with again.exclusive():
            again.append([b"e v1.0.0 h1:e\n"])
        assert Ledger(folder, "sum.example").records()[2:] == [b"e v1.0.0 h1:e\n"]
        assert (folder / "records").read_bytes() == before + b"e v1.0.0 h1:e\n\n"


def test_a_log_that_was_changed_does_not_open(tmp_path: Path) -> None:
    """A changed or a lost record, a foreign head, a lost file of the three is said, and nothing is signed over it."""
    whole = tmp_path / "whole"
    ledger = Ledger(whole, "sum.example")
    with ledger.exclusive():
        ledger.append([b"a v1.0.0 h1:a\n", b"b v1.0.0 h1:b\n"])
    for name, content in (
        ("records", b"a v1.0.0 h1:A\n\nb v1.0.0 h1:b\n\n"),
        ("records", b"a v1.0.0 h1:a\n\n"),
        ("head", Signer.make("sum.example").sign(Tree(0, tlog.EMPTY).text)),
        ("records", None),
        ("head", None),
        ("key", None),
    ):
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(Misconfigured, match=name):
            Ledger(folder, "sum.example")
        assert not (content is None and (folder / name).exists())


def test_two_processes_share_a_log(tmp_path: Path) -> None:
    """Two that append in turn see each other's records, and neither overwrites."""
    one, other = Ledger(tmp_path, "sum.example"), Ledger(tmp_path, "sum.example")
    for number in range(6):
        ledger = (one, other)[number % 2]
        with ledger.exclusive():
            assert ledger.append([f"m v1.0.{number} h1:x\n".encode()]) == number
    one.catch_up()
    assert one.records() == other.records()
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "go.sum database tree\n",
        "go.sum database tree\n-1\nAAAA\n",
        "other\n1\nAAAA\n",
        "go.sum database tree\n99999999999999999999\n" + "A" * 43 + "=\n",
    ],
)
def test_a_malformed_head_is_refused(text: str) -> None:
    """What is no tree head is an error of its own kind."""
    with pytest.raises(BadTree):
        tlog.parse_tree(text)
