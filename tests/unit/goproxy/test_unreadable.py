"""What a developer is told about a repository that the proxy cannot read."""

from pathlib import Path

import pytest

from mooring.errors import Unavailable
from mooring.goproxy.gocommand import translated
from mooring.goproxy.unreadable import explained, unexplained

ASKED = "github.com/acme/none@v1.0.0"
GO = f"go: {ASKED}: invalid version: git ls-remote -q origin in /store/vcs/abc: exit status 128:\n\t"
PROMPT = "fatal: could not read Username for 'https://github.com': terminal prompts disabled"
ABSENT = "remote: Repository not found.\n\tfatal: repository 'https://github.com/acme/none/' not found"
ADVICE = "\nConfirm the import path was entered correctly.\nIf this is a private repository, see https://golang.org/doc"


@pytest.mark.parametrize(
    ("entry", "means"),
    [
        ("machine github.com login x password y", "with what its netrc has for github.com"),
        ("machine gitlab.com login x password y", "without a password"),
        ("default login x password y", "with what its netrc has for github.com"),
        ("machine github.com secret", "without a password"),
        (None, "without a password"),
    ],
)
def test_who_was_asked_with_what_is_said(tmp_path: Path, entry: str | None, means: str) -> None:
    """The server, whether there is a password for it, and git's words; no advice for somebody else's machine."""
    file = tmp_path / "netrc"
    if entry is not None:
        file.write_text(f"{entry}\n")
    assert explained(ASKED, GO + PROMPT + ADVICE, file).splitlines() == [
        f"{ASKED}: github.com does not let the module proxy read this repository, which asks {means}",
        f"git: {PROMPT}",
    ]


def test_what_a_server_does_not_show_is_no_absence() -> None:
    """Many servers say of what they hide that it is not there: the words leave it open, and no other proxy is asked."""
    hidden = explained(ASKED, GO + ABSENT + ADVICE, None)
    assert hidden.startswith(f"{ASKED}: github.com has no such repository, or does not show it to the module proxy")
    assert "git: remote: Repository not found." in hidden
    assert isinstance(translated(hidden), Unavailable)


@pytest.mark.parametrize(
    "text",
    [
        f"go: {ASKED}: no matching versions for query",
        "fatal: unable to access 'https://github.com/acme/x/': Could not resolve host: github.com",
        'unrecognized import path "x.example/y": https fetch: Get "https://x.example/y?go-get=1": 404 Not Found',
    ],
)
def test_what_is_not_about_access_stays_as_it_was_said(text: str) -> None:
    """Nothing is put before words that tell the reason already."""
    assert explained(ASKED, text, None) == text
    assert unexplained(text) is None


def test_a_repository_that_go_found_none_at_is_asked_about() -> None:
    """Where a path names a repository, that one is meant, also by a module in one of its folders."""
    for module in ("git.example.com/team/x.git", "git.example.com/team/x.git/sub/v2"):
        said = f"go: {module}@v1.0.0: no secure protocol found for repository\n"
        assert unexplained(said) == "https://git.example.com/team/x.git"
