"""The way from a container to the module proxy, which is no address of the machine.

The folder of a socket that serves nothing else is mounted into the container, and a forwarder inside it listens at the
container's own 127.0.0.1: the go command knows no unix sockets.
"""

from pathlib import Path

_PORT = 9998
ADDRESS = f"http://127.0.0.1:{_PORT}/goproxy"
"""Where the go command inside a container asks."""
_FOLDER = "/run/mooring"
NO_SOCAT = 127
# In a shell of its own that ends at once: whoever started it shall not wait for it, nor be its parent.
_FORWARD = f"""
command -v socat >/dev/null || exit {NO_SOCAT}
socat TCP-LISTEN:{_PORT},bind=127.0.0.1,fork,reuseaddr UNIX-CONNECT:"$1" </dev/null >/dev/null 2>&1 &
"""


def bind(socket: Path) -> str:
    """The mount: of the folder, since each new listener is another file."""
    return f"{socket.parent}:{_FOLDER}:ro"


def forwarder(socket: Path) -> tuple[str, ...]:
    """The command that starts the forwarder inside and returns; status `NO_SOCAT` when the image has none."""
    return ("sh", "-c", _FORWARD, "modules", f"{_FOLDER}/{socket.name}")
