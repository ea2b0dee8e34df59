"""The usual request, known by its bytes: what a client asks for next differs from what it asked before in its path."""

import re
from collections.abc import Callable, Mapping

from mooring.goproxy.responses import Hit

ShortWay = Callable[[bytes, bytes], Hit | None]
"""The answer to a path and an authorization; None: it is the application's."""
_LONGEST = 4 * 1024
"""Bytes that are remembered of a client, as long as its connection stays open."""
_END = b"\r\n\r\n"
# Nothing that has to be decoded, no query, and no line break: what follows it are the headers, all of them.
_LINE = re.compile(rb"GET (/[A-Za-z0-9._~!@/+-]*) HTTP/1\.1\r\n")


class Usual:
    """The headers of one connection's requests, which a parser has read once: the same bytes are the same headers."""

    __slots__ = ("_headers", "authorization")

    def __init__(self) -> None:
        self._headers = b""
        self.authorization = b""
        """What the headers say of who asks."""

    def learn(self, request: bytes, found: Mapping[bytes, bytes]) -> None:
        """`request` is a whole one that a parser took, without a body, and that leaves the connection open.

        It found these headers. Who wants a part of something is not the usual client.
        """
        line, _, headers = request.partition(b"\r\n")
        if (
            len(headers) <= _LONGEST
            and headers.find(_END) == len(headers) - len(_END)
            and _LINE.fullmatch(line + b"\r\n")
            and b"range" not in found
        ):
            self._headers, self.authorization = headers, found.get(b"authorization", b"")

    def path(self, data: bytes) -> bytes | None:
        """What is asked for, where `data` is a whole request with the headers that were learned; None: it is not."""
        if not self._headers or not data.endswith(self._headers):
            return None
        found = _LINE.fullmatch(data, 0, len(data) - len(self._headers))
        return found[1] if found else None
