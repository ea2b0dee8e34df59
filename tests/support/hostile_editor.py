"""A workspace whose code is hostile: `python hostile_editor.py SOCKET`. Standard library only.

`/healthz` answers 200, `/page` is an empty page for a test's scripts, `/sw.js` a service worker, `/seen` the requests
that came as JSON, `/listen/PORT` (or `/listen/PORT/ADDRESS`) and `/close/PORT` open and close the same server on a
port, `/cookies` sets cookies of Mooring's names for whatever it may. Everything else is
remembered and answered with 200.
"""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer, ThreadingUnixStreamServer

SEEN: list[dict[str, str]] = []
OPEN: dict[int, ThreadingTCPServer] = {}
COOKIES = (
    "mooring=tossed",
    "__Host-mooring=tossed; Secure; Path=/",
    "=mooring=tossed",
    "=__Host-mooring=tossed",
    "mooring=tossed; Domain=localhost",
    "mooring=tossed; Domain=dev.example; Path=/",
)


class Tcp(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Unix(ThreadingUnixStreamServer):
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    """Answers and remembers."""

    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        _, what, *rest = self.path.split("?")[0].split("/")
        if what not in ("healthz", "seen", "page"):
            SEEN.append({"method": self.command, "path": self.path, "headers": str(self.headers)})
        kind, body = "text/plain", "mine"
        if what == "seen":
            body = json.dumps(SEEN)
        elif what == "page":
            kind, body = "text/html", "<!doctype html><title>hostile</title>"
        elif what == "sw.js":
            kind, body = "text/javascript", "self.addEventListener('fetch', () => {})"
        elif what == "listen":
            OPEN[int(rest[0])] = Tcp((rest[1] if rest[1:] else "127.0.0.1", int(rest[0])), Handler)
            threading.Thread(target=OPEN[int(rest[0])].serve_forever, daemon=True).start()
        elif what == "close":
            server = OPEN.pop(int(rest[0]))
            server.shutdown()
            server.socket.shutdown(socket.SHUT_RDWR)
            server.server_close()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Service-Worker-Allowed", "/")
        for cookie in COOKIES if what == "cookies" else ():
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = _any  # noqa: N815 - the names are the standard library's

    def address_string(self) -> str:
        """A unix socket's peer has no address."""
        return "-"

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    Path(sys.argv[1]).unlink(missing_ok=True)
    Unix(sys.argv[1], Handler).serve_forever()
