"""Where the go command of a process workspace finds the module proxy.

Usually that is the gateway at `localhost`. Where the gateway speaks TLS, has another name or listens elsewhere, it also
listens in plain on a port of 127.0.0.1, for modules alone: the go command neither knows names below localhost nor
trusts the local authority, and a name of a company's network need not lead back to this machine. Tokens guard it all
the same.
"""

import os
import socket

import structlog

from mooring.settings import Home, Installation, Listen

log = structlog.get_logger(__name__)

_REACHED = ("127.0.0.1", "0.0.0.0", "::1", "::")  # noqa: S104 - compared with, not bound to
_BACKLOG = 1024
_LONGEST = 16
_FREE = range(1024, 65536)


def address(installation: Installation) -> str:
    """The proxy's address without a slash at its end."""
    if installation.modules_port is None:
        return installation.listen.url("localhost", "/goproxy")
    return f"http://127.0.0.1:{installation.modules_port}/goproxy"


def open_port(home: Home, listen: Listen) -> socket.socket | None:
    """The gateway's listener for them, None where they reach the public one: of the last time's number, if it is free.

    Writes nothing: root's supervisor calls it, and home is somebody else's.
    """
    if not listen.tls and listen.domain == "localhost" and listen.address in _REACHED:
        return None
    port = _last(home)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        # Workspaces that run have the old number until they are restarted; those that start get this one.
        log.warning("another program has the module proxy's port", port=port, error=error.strerror)
        listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    return listener


def remember(home: Home, port: int) -> None:
    """Keep the number for the next start. A disk that takes it not costs running workspaces their way after a kill."""
    beside = home.modules_port.with_name(f"{home.modules_port.name}.new")
    try:
        beside.write_text(f"{port}\n")
        beside.replace(home.modules_port)
    except OSError as error:
        log.warning("the module proxy's port is not written down", port=port, error=error.strerror)


def _last(home: Home) -> int:
    """The number of the last time; 0, which stands for any, where there was none."""
    try:
        # No link and no pipe of another user leads root astray.
        fd = os.open(home.modules_port, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        text = os.read(fd, _LONGEST).strip()
    except OSError:
        return 0
    finally:
        os.close(fd)
    return int(text) if text.isdigit() and int(text) in _FREE else 0
