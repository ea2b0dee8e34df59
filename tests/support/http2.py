"""HTTP/2 by hand (RFC 9113): frames that say exactly what a test wants, also what no careful client would."""

import asyncio
import ssl
import struct

HEADERS, DATA, RESET, GO_AWAY = 1, 0, 3, 7


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def block(headers: list[tuple[str, str]]) -> bytes:
    """Literal fields without indexing or Huffman's code (RFC 7541, 6.2.2): what no careful client would write."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    raw = text.encode("latin1")
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    rest = len(raw) - 127
    return bytes((127, 128 | rest % 128, rest // 128)) + raw


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a gateway, for HTTP/2 only."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.test")


async def answered(reader: asyncio.StreamReader, stream: int) -> tuple[bytes, bytes] | None:
    """The beginning of its header block, which is the status, and its body; None when the stream is reset.

    Raises:
        ConnectionError: the connection ends, or the peer says that it will.
        IncompleteReadError: so it does, in the middle of a frame.
    """
    status, body = b"", b""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3]))
        kind, ends, number = head[3], head[4] & 1, int.from_bytes(head[5:])
        if kind == GO_AWAY:
            raise ConnectionError
        if number != stream or kind not in (HEADERS, DATA, RESET):
            continue
        if kind == RESET:
            return None
        if kind == HEADERS:
            status = payload[:5]
        else:
            body += payload
        if ends:
            return status, body
