"""uvicorn on a unix socket, inside a loop that is ours."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from mooring.errors import Unavailable

_GRACE_S = 3


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: the role decides what they mean."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Web:
    """Serves `app` at the unix socket `path` between `run` and `stop`."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._path = path
        self._server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="websockets-sansio",
                # `exec … | less` answers no ping for as long as it is not read: a deadline would cut its output off.
                ws_ping_timeout=None,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # nginx alone talks to this socket, and sets these headers itself.
                proxy_headers=True,
                forwarded_allow_ips="*",
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`. Raises `Unavailable` when the socket cannot be made."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                # Left by a server that was killed; its supervisor's lock sees to it that no other runs on this home.
                self._path.unlink(missing_ok=True)
                listener.bind(str(self._path))
                self._path.chmod(0o600)
            except OSError as error:
                raise Unavailable(f"cannot listen at {self._path}: {error.strerror}") from error
            await self._server.serve(sockets=[listener])

    def stop(self) -> None:
        """Finish what is being answered and end."""
        self._server.should_exit = True
