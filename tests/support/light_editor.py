"""A light editor: `python light_editor.py (SOCKET | PORT) [healthy|crashing|hanging]`. Standard library only.

`/healthz` answers 200, `/pid` its process id, `/environment/NAME` a variable, `/say/TEXT` prints a line, `/socket` is
a WebSocket that stays open and says nothing.
"""

import base64
import hashlib
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer, ThreadingUnixStreamServer


def _say(line: str) -> str:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return "said"


class Handler(BaseHTTPRequestHandler):
    """Answers; keeps quiet about it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """One word of path, one word of answer."""
        _, what, *rest = self.path.split("/")
        if what == "socket":
            self._hold_open()
            return
        answers = {
            "healthz": lambda: '{"status":"alive"}',
            "pid": lambda: str(os.getpid()),
            "environment": lambda: os.environ.get(rest[0], ""),  # noqa: TID251
            "say": lambda: _say(rest[0]),
        }
        body = answers.get(what, lambda: "")().encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hold_open(self) -> None:
        # RFC 6455, 1.3.
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())  # noqa: S324
        self.end_headers()
        while self.connection.recv(4096):
            pass
        self.close_connection = True

    def address_string(self) -> str:
        """A unix socket's peer has no address."""
        return "-"

    def log_message(self, *_: object) -> None:
        """Nothing: the output is what the tests look at."""


class UnixServer(ThreadingUnixStreamServer):
    daemon_threads = True


class TcpServer(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main(where: str, behaviour: str = "healthy") -> None:
    """Serve until killed."""
    _say("the editor begins")
    if behaviour == "crashing":
        sys.exit("boom: the editor cannot find its feet")
    if behaviour == "hanging":
        ours, _theirs = socket.socketpair()
        ours.recv(1)
    server: UnixServer | TcpServer
    if where.isdecimal():
        server = TcpServer(("0.0.0.0", int(where)), Handler)  # noqa: S104 - it is alone in its container
    else:
        Path(where).unlink(missing_ok=True)
        server = UnixServer(where, Handler)
    _say("the editor listens")
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
