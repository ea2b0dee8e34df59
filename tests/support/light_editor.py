"""A light editor for tests: answers every request on a unix socket. `python3 -I -S light_editor.py SOCKET`."""

import os
import socket
import sys


def main(path: str) -> None:
    """Serve until killed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.exists(path):  # noqa: PTH110 - runs with -S and imports little
        os.unlink(path)  # noqa: PTH108
    listener.bind(path)
    listener.listen(64)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            try:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
            except OSError:
                continue


if __name__ == "__main__":
    main(sys.argv[1])
