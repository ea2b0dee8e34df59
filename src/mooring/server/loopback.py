"""Where the go command of a process workspace finds the module proxy.

Usually that is the gateway at `localhost`. Where the gateway speaks TLS, has another name or listens elsewhere, the
role listens in plain on a port of 127.0.0.1 of its own: the go command neither knows names below localhost nor trusts
the local authority, and a name of a company's network need not lead back to this machine. Tokens guard it all the same.
"""

import fcntl
import os
import socket

import structlog

from mooring.settings import Home, Listen

log = structlog.get_logger(__name__)

_REACHED = ("127.0.0.1", "0.0.0.0", "::1", "::")  # noqa: S104 - compared with, not bound to
_BACKLOG = 1024


def address(home: Home, listen: Listen) -> str:
    """The proxy's address without a slash at its end.

    Raises:
        OSError: the port that it is to have cannot be written down.
    """
    if _by_gateway(listen):
        return listen.url("localhost", "/goproxy")
    return f"http://127.0.0.1:{_port(home)}/goproxy"


def open_port(home: Home, listen: Listen) -> socket.socket | None:
    """The role's own listener; None where the gateway is reached."""
    if _by_gateway(listen):
        return None
    port = _port(home)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        # Workspaces that run have the old number until they are restarted; those that start get this one.
        log.warning("another program has the module proxy's port", port=port, error=str(error))
        listener.bind(("127.0.0.1", _port(home, anew=True)))
    listener.listen(_BACKLOG)
    return listener


def _by_gateway(listen: Listen) -> bool:
    return not listen.tls and listen.domain == "localhost" and listen.address in _REACHED


def _port(home: Home, *, anew: bool = False) -> int:
    """The number that role and server agree on: made by whichever asks first, kept across starts."""
    fd = os.open(home.run / "goproxy.port", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+") as file:
        fcntl.flock(fd, fcntl.LOCK_EX)
        known = file.read().strip()
        if known.isdecimal() and not anew:
            return int(known)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        file.seek(0)
        file.truncate()
        file.write(f"{port}\n")
        return port
