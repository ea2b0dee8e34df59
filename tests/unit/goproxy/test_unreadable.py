"""What a developer is told about a repository that the proxy cannot read."""

from pathlib import Path

import pytest

from mooring.errors import MooringError, NotFound, Unavailable
from mooring.goproxy.faults import NoSpace, Unreadable
from mooring.goproxy.gocommand import GoCommand, translated
from mooring.goproxy.unreadable import explained, unexplained

ASKED = "github.com/acme/none@v1.0.0"
GO = f"go: {ASKED}: invalid version: git ls-remote -q origin in /store/vcs/abc: exit status 128:\n\t"
PROMPT = "fatal: could not read Username for 'https://github.com': terminal prompts disabled"
ABSENT = "remote: Repository not found.\n\tfatal: repository 'https://github.com/acme/none/' not found"
ADVICE = "\nConfirm the import path was entered correctly.\nIf this is a private repository, see https://golang.org/doc"
HAS = ", which asks with what its netrc has for github.com"
HAS_NONE = ", whose netrc has nothing for github.com"


@pytest.mark.parametrize(
    ("entry", "means"),
    [
        (b"machine github.com login x password y", HAS),
        (b"machine gitlab.com login x password y", HAS_NONE),
        (b"default login x password y", HAS),
        (b"machine github.com secret", HAS_NONE),
        (b"machine github.com login x password \xff\xfe", HAS_NONE),
        (None, HAS_NONE),
    ],
)
def test_who_was_asked_with_what_is_said(tmp_path: Path, entry: bytes | None, means: str) -> None:
    """The server, whether the netrc has it, and git's words; no advice for somebody else's machine."""
    file = tmp_path / "netrc"
    if entry is not None:
        file.write_bytes(entry + b"\n")
    error = explained(ASKED, GO + PROMPT + ADVICE, file)
    assert error is not None
    assert error.detail.splitlines() == [
        f"{ASKED}: github.com does not let the module proxy read this repository{means}",
        f"git: {PROMPT}",
    ]


@pytest.mark.parametrize("remote", ["remote: 404 Not Found\n\t", "remote: over your disk quota\n\t", ""])
def test_what_a_server_does_not_show_is_no_absence(remote: str) -> None:
    """Many servers say of what they hide that it is not there, in words of their choice: no other proxy is asked."""
    hidden = explained(ASKED, GO + remote + ABSENT + ADVICE, None)
    assert type(hidden) is Unreadable
    assert hidden.detail.startswith(f"{ASKED}: github.com has no such repository, or does not show it to the module")
    assert "git: remote: Repository not found." in hidden.detail


def test_a_server_does_not_choose_whom_the_netrc_is_searched_for(tmp_path: Path) -> None:
    """The host is git's; one that a server names says nothing about other entries."""
    file = tmp_path / "netrc"
    file.write_text("machine secret.example login x password y\n")
    error = explained(ASKED, f"{GO}remote: see https://secret.example/\n\t{PROMPT}", file)
    assert error is not None
    assert HAS_NONE in error.detail


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"go: {ASKED}: no matching versions for query", NotFound),
        ("fatal: unable to access 'https://github.com/acme/x/': Could not resolve host: github.com", Unavailable),
        ('unrecognized import path "x.example/y": reading https://x.example/y?go-get=1: 404 Not Found', NotFound),
        ("parse https://x.example/y?go-get=1: no go-import meta tags ()", Unavailable),
        ("no go-import meta tags (meta tag x.example/z did not match import path x.example/y)", NotFound),
        (f"{GO}remote: 404 Not Found\n\tfatal: protocol error: bad line length", Unavailable),
        (f"{GO}fatal: remote error: no\n\t404 Not Found", Unavailable),
        (f"{GO}remote: you are over your disk quota\n\tfatal: the remote end hung up", Unavailable),
        (f"{GO}error: unable to write: No space left on device\n\tfatal: fetch-pack failed", NoSpace),
        (f"go: {ASKED}: x509: certificate signed by unknown authority; 404 Not Found", Unavailable),
    ],
)
def test_what_is_not_about_access_stays_as_it_was_said(text: str, kind: type[MooringError]) -> None:
    """Nothing is put before words that tell the reason already; absence is what the go command itself tells."""
    assert explained(ASKED, text, None) is None
    assert unexplained(ASKED, text) is None
    error = translated(ASKED, text)
    assert type(error) is kind
    assert error.detail == text


@pytest.mark.parametrize("asked", ["example.com/x509:/certificate-timeout@v1.0.0", "example.com/x@timeout-certificate"])
def test_the_name_of_a_module_is_no_reason(asked: str) -> None:
    """A version of it that is absent is absent, whatever the words are that its path is made of."""
    said = f"go: {asked}: invalid version: unknown revision {asked.partition('@')[2]}"
    assert type(translated(asked, said)) is NotFound


def test_whose_go_is_too_old_is_said() -> None:
    """The version in the go command's words is the proxy's, and the developer has another one."""
    error = translated(ASKED, f"go: {ASKED} requires go >= 1.99 (running go 1.27; GOTOOLCHAIN=local)")
    assert type(error) is Unavailable
    assert error.detail.startswith(f"the module proxy's Go is too old for this module: go: {ASKED} requires go >= 1.99")


def test_no_part_of_a_password_is_shown() -> None:
    """Also where it holds an @, which git's own address would have written otherwise."""
    error = translated(ASKED, "fatal: unable to access 'https://ann:p@ss@word@github.com/acme/x/': no route to host")
    assert error.detail == "fatal: unable to access 'https://github.com/acme/x/': no route to host"


def test_a_repository_that_go_found_none_at_is_asked_about() -> None:
    """Where a path names a repository, that one is meant, also by a module in one of its folders."""
    for module in ("git.example.com/team/x.git", "git.example.com/team/x.git/sub/v2"):
        said = f"go: {module}@v1.0.0: no secure protocol found for repository\n"
        assert unexplained(f"{module}@v1.0.0", said) == "https://git.example.com/team/x.git"
    assert unexplained("git.example.com/x.github@v1.0.0", "no secure protocol found for repository") is None


@pytest.mark.parametrize(
    "worst",
    ["\n", " ", "a.git", "a.git/@", "https://", "://a@", "repository ", "remote: repository ", "fatal: https://x "],
)
async def test_a_servers_text_costs_no_time(tmp_path: Path, worst: str) -> None:
    """64 KB of what patterns take longest for is an error like every other, and a short one."""
    said = tmp_path / "said"
    said.write_text((worst * 2**16)[: 2**16] + ": no secure protocol found for repository\n")
    program = tmp_path / "go"
    program.write_text(f"#!/bin/sh\ncat {said} >&2\nexit 1\n")
    program.chmod(0o755)
    command = GoCommand(program, tmp_path / "store", "/usr/bin:/bin")
    command.prepare()
    with pytest.raises(Unavailable) as caught:
        await command.run("list", "-m", ASKED)
    assert len(caught.value.detail) <= 600


@pytest.mark.parametrize("stream", [1, 2])
async def test_endless_words_are_cut_off(tmp_path: Path, stream: int) -> None:
    """A program that never stops talking is ended once it said more than anybody has use for, and nothing is absent."""
    program = tmp_path / "go"
    program.write_text(f"#!/bin/sh\nexec yes 'go: unknown revision' >&{stream}\n")
    program.chmod(0o755)
    command = GoCommand(program, tmp_path / "store", "/usr/bin:/bin")
    command.prepare()
    with pytest.raises(Unavailable, match="says more than"):
        await command.run("list", "-m", ASKED)
