"""Module paths, versions, their escapes, and what a request's path asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import NotFound
from mooring.goproxy import semver
from mooring.goproxy.names import Ask, Kind, SumdbAsk, escape, matches_any, parse, unescape

BAD_PATHS = [
    "",
    "x",
    "/example.com/x/@v/list",
    "example.com/X/@v/list",
    "example.com/!X/@v/list",
    "example.com/x!/@v/list",
    "example.com/!/@v/list",
    "example.com/!1/@v/list",
    "example.com/../x/@v/list",
    "example.com/./x/@v/list",
    "example.com//x/@v/list",
    "example.com/x//@v/list",
    "example.com/.hidden/@v/list",
    "example.com/x./@v/list",
    "example.com/con/@v/list",
    "example.com/a~1/@v/list",
    "example.com/x%2F..%2Fy/@v/list",
    "example.com%2fx/@v/list",
    "example.com/x/@v%2Flist",
    "sumdb%2fsum.example/supported",
    "example.com/x%00/@v/list",
    "example.com/%C3%A4/@v/list",
    "example.com/x y/@v/list",
    "nodot/x/@v/list",
    "-example.com/x/@v/list",
    "EXAMPLE.com/x/@v/list",
    "example.com/x/v1/@v/list",
    "example.com/x/v01/@v/list",
    "example.com/x/v1.2/@v/list",
    "gopkg.in/yaml/@v/list",
    "example.com/x/@v/",
    "example.com/x/@v/v1.0.0",
    "example.com/x/@v/v1.0.0.tar",
    "example.com/x/@v/.zip",
    "example.com/x/@v/../../y/@v/v1.0.0.zip",
    "example.com/x/@v/a/b.info",
    "example.com/x/@v/main.zip",
    "example.com/x/@v/main.mod",
    "example.com/x/@v/v1.0.0+meta.zip",
    "example.com/x/@v/latest.info",
    "example.com/x/@v/upgrade.info",
    "example.com/x/@v/patch.info",
    "example.com/x/@v/v2.0.0.zip",
    "example.com/x/v2/@v/v1.0.0.zip",
    "example.com/x/@v/v1.0.0-01.zip",
    "example.com/x/@v/" + "v" * 300 + ".info",
    "example.com/" + "x" * 300 + "/@v/list",
    "example.com/" + "x/" * 700 + "y/@v/list",
    "sumdb//supported",
    "sumdb/../supported",
    "sumdb/sum.example/other",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_malformed_path_is_not_found(path: str) -> None:
    """Every malformed path, escape and version is absence, never another error and never another file."""
    with pytest.raises(NotFound):
        parse(b"/" + path.encode())


@pytest.mark.parametrize(
    ("path", "module", "version", "kind"),
    [
        ("github.com/!azure/sdk/@v/list", "github.com/Azure/sdk", "", Kind.list),
        ("github.com/%21azure/sdk/@latest", "github.com/Azure/sdk", "", Kind.latest),
        ("example.com/x/@v/v1.2.3.info", "example.com/x", "v1.2.3", Kind.info),
        ("example.com/x/@v/v2.0.0+incompatible.zip", "example.com/x", "v2.0.0+incompatible", Kind.zip),
        ("example.com/x/@v/v1.0.0-!r!c1.mod", "example.com/x", "v1.0.0-RC1", Kind.mod),
        ("example.com/x/v3/@v/v3.1.0.mod", "example.com/x/v3", "v3.1.0", Kind.mod),
        ("gopkg.in/yaml.v2/@v/v2.4.0.zip", "gopkg.in/yaml.v2", "v2.4.0", Kind.zip),
        (
            "gopkg.in/check.v1/@v/v0.0.0-20161208181325-20d25e280405.mod",
            "gopkg.in/check.v1",
            "v0.0.0-20161208181325-20d25e280405",
            Kind.mod,
        ),
        ("example.com/x/@v/main.info", "example.com/x", "main", Kind.info),
        ("example.com/x/@v/0123abc.info", "example.com/x", "0123abc", Kind.info),
        (
            "golang.org/toolchain/@v/v0.0.1-go1.25.0.linux-amd64.zip",
            "golang.org/toolchain",
            "v0.0.1-go1.25.0.linux-amd64",
            Kind.zip,
        ),
    ],
)
def test_a_path_is_read(path: str, module: str, version: str, kind: Kind) -> None:
    """Escapes, `+incompatible`, pseudo-versions, branches and toolchains are what they are in the protocol."""
    found = parse(b"/" + path.encode())
    assert isinstance(found, Ask)
    assert (found.module, found.version, found.kind) == (module, version, kind)
    assert found.name == path.replace("%21", "!")


def test_a_checksum_database_may_have_slashes_in_its_name() -> None:
    """The database's name is a host with an optional path."""
    assert parse(b"/sumdb/sum.example/team/supported") == SumdbAsk("sum.example/team", "supported")
    assert parse(b"/sumdb/sum.example/lookup/example.com/x@v1.0.0") == SumdbAsk(
        "sum.example", "lookup/example.com/x@v1.0.0"
    )


@given(st.text("abcXYZ-._~/09", min_size=1, max_size=40))
def test_escapes_go_back_and_forth(text: str) -> None:
    """Unescaping what was escaped gives the same text, without an upper-case letter in between."""
    assert escape(text) == escape(text).lower()
    assert unescape(escape(text)) == text


@given(st.binary(max_size=80))
def test_no_request_climbs_out(raw: bytes) -> None:
    """Whatever bytes come, a name is below the store or there is none."""
    try:
        found = parse(b"/" + raw)
    except NotFound:
        return
    name = found.name if isinstance(found, Ask) else f"{found.database}/{found.rest}"
    assert not name.startswith("/")
    assert ".." not in name.split("/") or isinstance(found, SumdbAsk)


@pytest.mark.parametrize(
    ("pattern", "module", "covered"),
    [
        ("example.com", "example.com/x/y", True),
        ("example.com/*", "example.com/x/y", True),
        ("example.com/x", "example.com/xy", False),
        ("*.corp.example", "git.corp.example/x", True),
        ("*.corp.example", "corp.example/x", False),
        ("example.com/x/y", "example.com/x", False),
        ("example.com/x/", "example.com/x", True),
    ],
)
def test_private_patterns_cover_leading_elements(pattern: str, module: str, covered: bool) -> None:  # noqa: FBT001
    """Patterns are GOPRIVATE's: globs, each for as many leading elements as it has."""
    assert matches_any((pattern,), module) is covered


def test_versions_are_ordered() -> None:
    """The order of semver.org's own example, with pre-releases before their release."""
    order = [
        "v1.0.0-alpha",
        "v1.0.0-alpha.1",
        "v1.0.0-alpha.beta",
        "v1.0.0-beta",
        "v1.0.0-beta.2",
        "v1.0.0-beta.11",
        "v1.0.0-rc.1",
        "v1.0.0",
        "v1.2.0",
        "v1.10.0",
        "v2.0.0",
    ]
    shuffled = order[5:] + order[:5]
    assert sorted(shuffled, key=semver.key) == order


@pytest.mark.parametrize(
    "version",
    [
        "v0.0.0-20200101000000-abcdefabcdef",
        "v1.2.4-0.20200101000000-abcdefabcdef",
        "v1.2.3-pre.0.20200101000000-abcdefabcdef",
        "v2.0.1-0.20200101000000-abcdefabcdef+incompatible",
    ],
)
def test_pseudo_versions_are_known(version: str) -> None:
    """The three forms of a pseudo-version, and that a release is none."""
    assert semver.is_pseudo(version)
    assert not semver.is_pseudo("v1.2.3-rc.1")


@pytest.mark.parametrize(
    ("version", "query", "holds"),
    [
        ("v1.2.3", "v1.2", True),
        ("v1.20.0", "v1.2", False),
        ("v1.2.3", "<v1.2.4", True),
        ("v1.2.4", "<=v1.2.4", True),
        ("v1.2.4", ">v1.2.4", False),
        ("v1.9.0", "^v1.2.0", True),
        ("v2.0.0", "^v1.2.0", False),
        ("v1.2.9", "~v1.2.3", True),
        ("v1.3.0", "~v1.2.3", False),
        ("v1.2.3", "v1.2.3", True),
        ("v1.2.3", "v1", True),
    ],
)
def test_version_queries(version: str, query: str, holds: bool) -> None:  # noqa: FBT001
    """What a rule's version range means."""
    assert semver.matches(version, query) is holds
