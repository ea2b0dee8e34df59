"""Routes that anybody may publish: what is refused, and by which name."""

from typing import Any

import pytest
from pydantic import ValidationError

from mooring.model.routes import Route

GOOD: dict[str, Any] = {"name": "a", "host": "a.example", "backends": [{"address": "127.0.0.1:80"}]}
HOSTILE = [
    "..",
    "%2f",
    '"',
    "\n",
    "\r\nX: y",
    "$host",
    ";",
    "{",
    "}",
    "`",
    "\\",
    "\x00",
    "ngx.exit(200)",
    "}} location / {",
]


def test_a_good_route_is_read() -> None:
    """The smallest useful route."""
    assert Route.model_validate(GOOD).path == "/"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_host_is_refused(text: str) -> None:
    """Dots, escapes, quotes, newlines, Lua and nginx syntax never get into a host."""
    with pytest.raises(ValidationError, match="host"):
        Route.model_validate({**GOOD, "host": f"a{text}b"})


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != ".."])
def test_a_hostile_name_is_refused(text: str) -> None:
    """A name may hold dots; the rest of what means something elsewhere it may not."""
    with pytest.raises(ValidationError, match="name"):
        Route.model_validate({**GOOD, "name": f"a{text}b"})


@pytest.mark.parametrize(
    "path", ["a", "/a/../b", "/./a", "//a", "/a%2fb", "/a b", "/a\n", '/a"', "/.mooring/x", "/.mooring", "/é"]
)
def test_a_hostile_path_is_refused(path: str) -> None:
    """A path is compared with raw bytes: what cannot be compared safely is refused."""
    with pytest.raises(ValidationError, match="path"):
        Route.model_validate({**GOOD, "path": path})


@pytest.mark.parametrize(
    "address", ["", "a", "a:0", "a:65536", "a:b", "a b:80", "[::1:80", "a:80/x", "a:{port}x", "a:\uff18\uff10"]
)
def test_a_bad_address_is_refused(address: str) -> None:
    """An address is a host and a port."""
    with pytest.raises(ValidationError, match="address"):
        Route.model_validate({**GOOD, "backends": [{"address": address}]})


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"backends": []},
        {"backends": [{"address": "a:80", "unix": "/a"}]},
        {"backends": [{}]},
        {"backends": [{"unix": "relative"}]},
        {"backends": [{"unix": "/" + "a" * 200}]},
        {"filters": {"request_headers": {"set": {"a b": "x"}}}},
        {"filters": {"request_headers": {"set": {"a": "x\r\ny: z"}}}},
        {"access": {"kind": "everybody"}},
        {"host": "p{port}--a.example", "path": "/x/{port}/"},
        {"backends": [{"address": "a:{port}"}]},
        {"timeouts": {"connect_s": 0}},
        {"backends": [{"address": "a:80", "weight": -1}]},
        {"filters": {"mirror": {}}},
        {"filters": {"mirror": {"backend": {}}}},
        {"filters": {"mirror": {"backend": {"address": "a:80"}, "percent": 0}}},
        {"filters": {"mirror": {"backend": {"address": "a:80"}, "percent": 101}}},
        {"filters": {"mirror": {"backend": {"address": "a:80", "weight": 2}}}},
        {"filters": {"mirror": {"backend": {"address": "a:80", "identity": "abcdefghij"}}}},
        {"filters": {"mirror": {"backend": {"files": "/srv"}}}},
        {"filters": {"mirror": {"backend": {"listener_of": "abcdefghij"}}}},
        {"host": "p{port}--a.example", "filters": {"mirror": {"backend": {"address": "a:{port}"}}}},
    ],
)
def test_other_mistakes_are_refused(change: dict[str, Any]) -> None:
    """A misspelt or contradictory route is an error and never an open door."""
    with pytest.raises(ValidationError):
        Route.model_validate({**GOOD, **change})


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("redirect.host", {"filters": {"redirect": {"host": "*"}}}),
        ("redirect.host", {"filters": {"redirect": {"host": "*.example.org"}}}),
        ("tls.server_name", {"backends": [{"address": "a:1", "tls": {"server_name": "p{port}--a"}}]}),
        ("cors.origins", {"filters": {"cors": {"origins": ["https://a.test\r\nSet-Cookie: a=b"]}}}),
        ("cors.origins", {"filters": {"cors": {"origins": ["https://a.test/path"]}}}),
        ("cors.methods", {"filters": {"cors": {"origins": ["*"], "methods": ["GET\r\nX: y"]}}}),
        ("access.subjects", {"access": {"kind": "subjects", "subjects": ["ada\n"]}}),
    ],
)
def test_what_becomes_a_header_is_one_host_origin_method_or_name(field: str, part: dict[str, Any]) -> None:
    """A pattern of hosts is no place to go to, and nothing can end a header."""
    with pytest.raises(ValidationError, match=field.replace(".", r"\.")):
        Route.model_validate({**GOOD, **part})


@pytest.mark.parametrize("origin", ["*", "https://a.test", "http://localhost:3000", "http://[::1]:80"])
def test_origins_are_those_that_browsers_send(origin: str) -> None:
    """Scheme, host and port (RFC 6454), or everybody."""
    route = Route.model_validate({**GOOD, "filters": {"cors": {"origins": [origin]}}})
    assert route.filters.cors
    assert route.filters.cors.origins == (origin,)
