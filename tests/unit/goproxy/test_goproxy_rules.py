"""Which modules may be used, and by whom."""

import base64
from pathlib import Path

import pytest

from mooring.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from mooring.goproxy import access
from mooring.goproxy.access import Access, Subject
from mooring.goproxy.gate import Gate
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.policy import Filter, Mark
from support.nobody import begun_by_root

RULES = """
# an allow-list
-
+ example.com/team
D example.com/tools
- example.com/team/old          # use example.com/team/new
- example.com/team/lib <v1.4.2,v1.6.0   # CVE-2026-1234: take v1.4.2 or v1.6.1
"""


def rules(tmp_path: Path, text: str = RULES) -> Filter:
    """A filter of this text."""
    file = tmp_path / "filter"
    file.write_text(text)
    return Filter(file)


@pytest.mark.parametrize(
    ("module", "version", "reason"),
    [
        ("example.com/other", "v1.0.0", "is not allowed here"),
        ("example.com/team/old", "", "use example.com/team/new"),
        ("example.com/team/old/sub", "v1.0.0", "use example.com/team/new"),
        ("example.com/team/lib", "v1.4.1", "CVE-2026-1234"),
        ("example.com/team/lib", "v1.6.0", "take v1.4.2"),
    ],
)
def test_what_a_rule_excludes_is_refused_with_its_reason(
    tmp_path: Path, module: str, version: str, reason: str
) -> None:
    """The longest pattern decides, versions count, and the text after # is what the developer reads."""
    with pytest.raises(Forbidden, match=reason):
        rules(tmp_path).mark(module, version)


def test_what_no_rule_excludes_is_included(tmp_path: Path) -> None:
    """Other versions, other modules of the team, and what is to be had elsewhere."""
    found = rules(tmp_path)
    assert found.mark("example.com/team/lib", "v1.4.2") is Mark.include
    assert found.mark("example.com/team/lib") is Mark.include
    assert found.mark("example.com/team/x", "v1.0.0") is Mark.include
    assert found.mark("example.com/tools/x", "v1.0.0") is Mark.direct
    assert Filter(None).mark("example.com/x") is Mark.include


@pytest.mark.parametrize("line", ["* example.com", "+ example.com 1.2", "include example.com", "- example.com <1.0"])
def test_a_line_that_is_no_rule_is_named(tmp_path: Path, line: str) -> None:
    """A filter file with a mistake does not start, and says which line."""
    with pytest.raises(InvalidInput, match="line 2"):
        rules(tmp_path, f"+ example.com\n{line}\n")


def test_a_change_counts_at_once_and_a_mistake_leaves_the_last_rules(tmp_path: Path) -> None:
    """The file is read again when it changes; one that is broken or gone opens nothing."""
    found = rules(tmp_path, "- example.com/x\n")
    file = tmp_path / "filter"
    for text in (b"+ +\n- broken broken", b"+ example.com/x # \xff\n", None):
        if text is None:
            file.unlink()
        else:
            file.write_bytes(text)
        with pytest.raises(Forbidden):
            found.mark("example.com/x")
    file.write_text("- example.com/y\n")
    assert found.mark("example.com/x") is Mark.include


def test_a_change_counts_for_modules_that_were_asked_about(tmp_path: Path) -> None:
    """Which rules are about a module is remembered for as long as the file stays as it is."""
    found = rules(tmp_path, "-\n+ example.com/a\n- example.com/a <v1.2.0\n")
    # Of two rules that are equally long the first one decides.
    assert found.allows("example.com/a", "v1.1.0")
    assert not found.allows("example.com/b", "v1.1.0")
    (tmp_path / "filter").write_text("- example.com/a <v1.2.0\n")
    assert not found.allows("example.com/a", "v1.1.0")
    assert found.allows("example.com/a", "v1.2.0")
    assert found.allows("example.com/b", "v1.1.0")


def basic(token: str) -> bytes:
    """What the go command sends for a line of .netrc."""
    return b"Basic " + base64.b64encode(f"ann:{token}".encode())


def test_a_token_opens_in_each_of_its_three_forms(tmp_path: Path) -> None:
    """As the password of basic authentication, as a bearer token, and as a path segment."""
    file = tmp_path / "tokens"
    token = access.make(file, "ann", ("git.example/team",))
    found = Access(file)
    for authorization, segment in ((basic(token), ""), (b"Bearer " + token.encode(), ""), (b"", token)):
        subject = found.subject(authorization, segment)
        assert subject.name == "ann"
        assert subject.owns("git.example/team/x")
        with pytest.raises(Forbidden):
            subject.check("git.example/other")
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("authorization", [b"", b"Basic !!!", b"Basic", b"Bearer wrong", basic("wrong"), b"Digest x"])
def test_everything_else_is_refused(tmp_path: Path, authorization: bytes) -> None:
    """No token, a wrong one, a malformed header."""
    file = tmp_path / "tokens"
    access.make(file, "ann", ())
    with pytest.raises(Unauthenticated):
        Access(file).subject(authorization, "")


def test_a_token_that_is_removed_opens_no_more(tmp_path: Path) -> None:
    """The file is read again when it changes, and an absent one opens to nobody."""
    file = tmp_path / "tokens"
    token = access.make(file, "ann", ())
    found = Access(file)
    other = access.make(file, "bob", ())
    found.subject(b"", token)
    assert access.revoke(file, "ann") == 1
    assert access.revoke(file, "ann") == 0
    with pytest.raises(Unauthenticated):
        found.subject(b"", token)
    assert found.subject(b"", other).name == "bob"
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    with pytest.raises(Unauthenticated):
        found.subject(b"", token)


def test_tokens_that_cannot_be_read_open_nothing(tmp_path: Path) -> None:
    """Whoever asks is told that the fault is the proxy's, and not that they are unknown."""
    file = tmp_path / "tokens"
    token = access.make(file, "ann", ())
    found = Access(file)
    found.subject(b"", token)
    file.unlink()
    file.mkdir()
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot read its file of tokens: Is a directory"):
            found.subject(b"", token)


@pytest.mark.parametrize("name", ["", "ann b", "a,b", "#ann", "workspace:ann/x"])
def test_a_token_that_would_open_nothing_is_not_made(tmp_path: Path, name: str) -> None:
    """The file would read it as another line than one of a person's."""
    with pytest.raises(InvalidInput):
        access.make(tmp_path / "tokens", name, ())
    assert not list(tmp_path.iterdir())


def test_tokens_that_cannot_be_saved_are_said_to_be(tmp_path: Path) -> None:
    """Neither made nor revoked; the file is as it was."""
    file = tmp_path / "tokens"
    access.make(file, "ann", ())
    before = file.read_text()
    (tmp_path / ".tokens.new").mkdir()
    for change in (lambda: access.make(file, "bob", ()), lambda: access.revoke(file, "ann")):
        with pytest.raises(Unavailable, match="the tokens cannot be saved: Is a directory"):
            change()
    assert file.read_text() == before


def test_tokens_that_a_killed_process_of_root_began_stop_nobody() -> None:
    """The user that serves could not write over them, in a folder of its own."""
    with begun_by_root("tokens") as file:
        token = access.make(file, "ann", ())
        assert Access(file).subject(b"", token).name == "ann"


def test_the_segment_is_split_off() -> None:
    """The token is no part of the path that is served or logged."""
    assert access.segment(b"/t-abc/example.com/x/@v/list") == ("abc", b"/example.com/x/@v/list")
    assert access.segment(b"/example.com/x/@v/list") == ("", b"/example.com/x/@v/list")
    # A host may begin so, too.
    assert access.segment(b"/t-example.com/x/@v/list") == ("", b"/t-example.com/x/@v/list")


def test_a_private_module_is_never_sent_elsewhere(tmp_path: Path) -> None:
    """A rule for `D` does not make a client name a private module to an upstream, and an exclusion still counts."""
    gate = Gate(
        Access(None), rules(tmp_path, "D *.example\n- git.example/old"), lambda module: module.startswith("git.")
    )
    everybody = gate.subject(b"", "")
    assert gate.admit(everybody, ask("git.example/x", "v1.0.0", Kind.zip)) is Mark.include
    assert gate.admit(everybody, ask("www.example/x", "v1.0.0", Kind.zip)) is Mark.direct
    with pytest.raises(Forbidden):
        gate.admit(everybody, ask("git.example/old", "v1.0.0", Kind.zip))


def test_a_reason_is_for_those_who_may_have_the_module(tmp_path: Path) -> None:
    """A rule's words about a private module are not told to somebody whose it is not."""
    gate = Gate(Access(None), rules(tmp_path, "- git.example/old # sold to ACME"), lambda _module: True)
    wanted = ask("git.example/old", "v1.0.0", Kind.zip)
    with pytest.raises(Forbidden, match="sold to ACME"):
        gate.admit(Subject("ann", ("git.example",)), wanted)
    with pytest.raises(Forbidden, match="is private, and eve may not have it"):
        gate.admit(Subject("eve", ()), wanted)


def test_tokens_that_are_moved_away_and_back_open_again(tmp_path: Path) -> None:
    """Without the file nobody is known; the same file, unchanged, counts as before."""
    file, aside = tmp_path / "tokens", tmp_path / "aside"
    token = access.make(file, "ann", ())
    found = Access(file)
    assert found.subject(b"", token).name == "ann"
    file.replace(aside)
    with pytest.raises(Unauthenticated):
        found.subject(b"", token)
    aside.replace(file)
    assert found.subject(b"", token).name == "ann"
