"""A question to a server that listens at a unix socket."""

import http.client
import socket
from pathlib import Path

_TIMEOUT_S = 5.0
"""Longer than the server waits for a database that is silent before it says so."""


def ask(path: Path, host: str, target: str, token: str | None = None) -> tuple[int, str]:
    """The status and the body of a GET over a unix socket; status 0 when nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT_S)
    try:
        client.connect(str(path))
        connection.sock = client
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        client.close()
