"""What one client may hold of a server that many share: connections on which nothing arrives end after a while."""

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 30.0
"""Seconds from a request's first byte to the end of its headers, and of a connection until the first byte."""
HEAD_BYTES = 64 * 1024
"""Of a request's first line and headers; uvicorn keeps whatever comes, which is gigabytes within seconds."""
_FILES = 65536


def open_many_files() -> None:
    """Let this process have as many files as it may: every connection, and every zip that is being sent, is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Impatient(HttpToolsProtocol):
    """Ends connections whose request does not get ready, or never stops; uvicorn's limit begins after an answer."""

    _deadline: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection; nothing may ever come."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._go_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What came; as long as headers are not complete it was a part of them."""
        super().data_received(data)
        if self._deadline is not None and not self.transport.is_closing():
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self.send_400_response("The request's headers are too long.")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._go_on()
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """All that an answer needs."""
        self._go_on()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._head = 0
        self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _go_on(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
