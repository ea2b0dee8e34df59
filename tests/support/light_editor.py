"""A light editor: `python light_editor.py (SOCKET | PORT) [healthy|crashing|hanging]`. Standard library only.

`/healthz` answers 200, `/pid` its process id, `/environment/NAME` a variable, `/say/TEXT` prints a line.
"""

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
