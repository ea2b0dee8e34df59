"""The file `goproxy.toml`: what it means, and what is said about mistakes in it."""

from pathlib import Path

import pytest

from mooring.goproxy.team import Team, read
from mooring.model.toml import BadToml
from mooring.settings import Home

WHOLE = """
enabled = true
upstream = "https://a.example|https://b.example,off"
sumdb = "off"
nosumdb = ["x.example"]
private = ["git.example.com", "*.corp.example/team"]
notary = "sum.example"
filter = "filter.txt"
max_size = "200G"

[credentials]
netrc = "netrc"
gitconfig = "/etc/mooring/gitconfig"

[s3]
url = "https://s3.example/modules"
credentials = "s3"

[[allow]]
users = ["ann", "bob"]
modules = ["git.example.com/team"]

[[allow]]
users = ["*"]
modules = ["git.example.com/all", "git.example.com/team"]
"""


def said(tmp_path: Path, text: str) -> str:
    """What is said about a file."""
    file = tmp_path / "goproxy.toml"
    file.write_text(text)
    with pytest.raises(BadToml) as caught:
        read(file)
    return caught.value.detail


def test_no_file_is_the_default(tmp_path: Path) -> None:
    """Public modules as the go command has them, nothing private, below home."""
    home = Home(tmp_path)
    config = read(home.modules_settings).config(home, Path("/sdk/bin/go"))
    assert (config.root, config.tokens, config.go) == (home.modules, home.modules_tokens, Path("/sdk/bin/go"))
    assert (config.upstream, config.sumdb, config.private, config.max_bytes) == (None, None, (), None)


def test_a_whole_file(tmp_path: Path) -> None:
    """Paths are relative to the file's folder, and sizes are bytes."""
    home = Home(tmp_path)
    home.modules_settings.write_text(WHOLE)
    team = read(home.modules_settings)
    config = team.config(home, Path("go"))
    assert config.credentials.netrc == tmp_path / "netrc"
    assert config.credentials.gitconfig == Path("/etc/mooring/gitconfig")
    assert config.filter == tmp_path / "filter.txt"
    assert config.max_bytes == 200 * 2**30
    assert config.s3 is not None
    assert config.s3.credentials == tmp_path / "s3"
    assert team.allowed("ann") == ("git.example.com/team", "git.example.com/all")
    assert team.allowed("eve") == ("git.example.com/all", "git.example.com/team")
    assert Team().allowed("ann") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nprivat = []", "goproxy.toml:2: privat: there is no such key"),
        ("a =", "goproxy.toml:1: Invalid value"),
        ("private = 'x'", "goproxy.toml:1: private: must be a list"),
        ("private = ['a,b']", "goproxy.toml:1: private.0: must be a pattern of module paths as in GOPRIVATE"),
        ("upstream = 'ftp://x.example'", "goproxy.toml:1: upstream: 'ftp://x.example' must begin with https://"),
        ("upstream = 'http://[::1'", "goproxy.toml:1: upstream: 'http://[::1' must be a URL"),
        ("upstream = 'https://'", "goproxy.toml:1: upstream: 'https://' must be a URL"),
        ("upstream = 'file:///%00'", "goproxy.toml:1: upstream: 'file:///%00' must be a URL"),
        ('filter = "\\u0000"', "goproxy.toml:1: filter: must be the path of a file"),
        ('[credentials]\nnetrc = "\\u0000"', "goproxy.toml:2: credentials.netrc: must be the path of a file"),
        ("a = " + "[" * 100_000, "goproxy.toml:1: must not be nested so deep"),
        ("\n\nmax_size = '1X'", "goproxy.toml:3: max_size: '1X' must be a number of bytes"),
        ("notary = 'a b'", "goproxy.toml:1: notary: must match pattern"),
        ("[credentials]\n\nnetrcs = 'x'", "goproxy.toml:3: credentials.netrcs: there is no such key"),
        ("[s3]\nurl = 'x'", "goproxy.toml:1: s3.credentials: is required"),
        (
            "[[allow]]\nusers = ['a']\nmodules = []\n[[allow]]\nusers = ['No']\nmodules = []",
            "goproxy.toml:5: allow.1.users.0: must be a user's name, or * for everybody",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """File, line and key, and what is allowed there."""
    assert expected in said(tmp_path, text)


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    """Neither bytes nor a folder nor a huge file breaks anything."""
    file = tmp_path / "goproxy.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(BadToml, match="must be UTF-8"):
        read(file)
    file.write_text("#" * 300_000)
    with pytest.raises(BadToml, match="must have at most"):
        read(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(BadToml, match="directory"):
        read(file)
