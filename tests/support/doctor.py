"""What `mooring doctor` finds of a home, and servers that answer it as a test wants."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mooring.server.doctor.examination import examine
from mooring.server.doctor.findings import Finding
from mooring.settings import Home


def found_by_doctor(home: Home, what: str) -> Finding | None:
    """The first finding about it."""
    return next((finding for finding in examine(home) if finding.what == what), None)


@contextmanager
def answering(path: Path, status: str, document: object, heard: list[bytes] | None = None) -> Iterator[None]:
    """A server at a unix socket that answers every request so, a text as it is; what it is asked goes to `heard`."""
    body = document if isinstance(document, str) else json.dumps(document)
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked = connection.recv(65536)
                    if heard is not None:
                        heard.append(asked)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()
