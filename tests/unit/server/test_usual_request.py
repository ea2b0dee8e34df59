"""What is known by its bytes is what a parser makes of it, and nothing else is."""

import random

import httptools
import pytest

from mooring.server.usual import Usual

HEADERS = b"Host: x\r\nUser-Agent: Go-http-client/1.1\r\nAuthorization: Bearer one\r\nAccept-Encoding: gzip\r\n\r\n"
FIRST = b"GET /example.com/x/@v/v1.0.0.info HTTP/1.1\r\n" + HEADERS
STRANGE = [
    b"GET /x?y HTTP/1.1\r\n", b"GET /x#y HTTP/1.1\r\n", b"GET /%78 HTTP/1.1\r\n", b"HEAD /x HTTP/1.1\r\n",
    b"GET /x HTTP/1.0\r\n", b"GET http://y/x HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\nX: y\r\n", b"\r\nGET /x HTTP/1.1\r\n",
    b"GET /x HTTP/1.1\n", b"GET /x HTTP/1.1\r\n\r\n", b"GET /x  HTTP/1.1\r\n", b"get /x HTTP/1.1\r\n", b"", b"GET ",
    b"GET * HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", FIRST, FIRST + b"GET /x HTTP/1.1\r\n", b"GET /\xe4 HTTP/1.1\r\n",
]  # fmt: skip


class Parsed:
    """What a parser finds in one piece."""

    def __init__(self, data: bytes) -> None:
        self.urls: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.ends = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.urls.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.ends += 1


def learned() -> Usual:
    """It has seen one request."""
    usual = Usual()
    usual.learn(FIRST, {b"authorization": b"Bearer one"})
    return usual


def test_only_the_path_may_differ() -> None:
    """Whoever sends the same headers again is the same one."""
    usual = learned()
    assert usual.path(b"GET /example.com/!y/@v/v1.2.3+incompatible.mod HTTP/1.1\r\n" + HEADERS) == (
        b"/example.com/!y/@v/v1.2.3+incompatible.mod"
    )
    assert usual.authorization == b"Bearer one"
    assert usual.path(FIRST.replace(b"one", b"two")) is None
    assert usual.path(FIRST.replace(b"Host: x\r\n", b"")) is None
    assert Usual().path(FIRST) is None


@pytest.mark.parametrize("line", STRANGE)
def test_anything_else_is_for_the_parser(line: bytes) -> None:
    """Neither known nor learned."""
    assert learned().path(line + HEADERS) is None
    usual = Usual()
    usual.learn(line + HEADERS, {})
    assert usual.path(FIRST) is None


def test_who_wants_a_part_is_not_the_usual_client() -> None:
    """Of a zip there are parts, and the short way has none."""
    usual = Usual()
    usual.learn(FIRST, {b"range": b"bytes=0-3"})
    assert usual.path(FIRST) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_parser_reads_the_same(seed: int) -> None:
    """Of requests with bytes changed, removed, added or doubled those that are known are one request each."""
    order, usual, known = random.Random(seed), learned(), 0  # noqa: S311 - which bytes
    for _ in range(20_000):
        data = bytearray(FIRST)
        for _ in range(order.randint(1, 2)):
            at = order.randrange(60) if order.random() < 0.9 else order.randrange(len(data))
            data[at : at + order.randint(0, 2)] = order.choice(
                [b"", b" ", b"\r\n", b"/", b"%", bytes([order.randrange(256)])]
            )
        path = usual.path(bytes(data))
        if path is not None:
            parsed, known = Parsed(bytes(data)), known + 1
            assert (parsed.urls, parsed.ends, parsed.parser.should_keep_alive()) == ([path], 1, True)
            assert parsed.parser.get_method() == b"GET"
            assert parsed.parser.get_http_version() == "1.1"
            assert parsed.headers == Parsed(FIRST).headers
    assert known > 1000
