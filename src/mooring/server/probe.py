"""The readiness probe: asks a workspace's editor through the public listener, as a browser would."""

import asyncio
import ssl
from http import HTTPStatus

from mooring.errors import Unavailable
from mooring.model.names import Hosts
from mooring.model.template import Template
from mooring.model.workspace import Workspace
from mooring.settings import Listen
from mooring.workspaces.launch import health_path

_WITHIN_S = 1.0
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


class GatewayProbe:
    """Asks at the address that the gateway listens on; `token` is the probe's own bearer token."""

    def __init__(self, listen: Listen, token: str) -> None:
        self._address = _ANY.get(listen.address, listen.address)
        self._port = listen.port
        self._hosts = Hosts(listen.domain)
        self._token = token
        self._tls = _own_certificate() if listen.tls else None

    async def answered(self, workspace: Workspace, template: Template) -> bool:
        host = self._hosts.workspace(workspace.name, workspace.owner)
        request = (
            f"GET {health_path(workspace, template)} HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {self._token}\r\nConnection: close\r\n\r\n"
        )
        return await self._status(host, request) == HTTPStatus.OK

    async def ready(self) -> bool:
        """Whether the server answers that it is ready, through the gateway."""
        request = f"GET /readyz HTTP/1.1\r\nHost: {self._hosts.console}\r\nConnection: close\r\n\r\n"
        try:
            return await self._status(self._hosts.console, request) == HTTPStatus.OK
        except Unavailable:
            return False

    async def _status(self, host: str, request: str) -> int:
        """The answer's status; 0 when it does not come in time.

        Raises:
            Unavailable: the gateway takes no connection, closes it without an answer, or refuses the probe itself.
        """
        writer = None
        try:
            async with asyncio.timeout(_WITHIN_S):
                reader, writer = await asyncio.open_connection(
                    self._address, self._port, ssl=self._tls, server_hostname=host if self._tls else None
                )
                writer.write(request.encode())
                head = await _head(reader)
        except TimeoutError:
            return 0
        except (OSError, ValueError) as error:
            # A ValueError is a header line without end: whoever has the gateway's port does not speak HTTP.
            raise Unavailable(f"the gateway does not answer at {self._address}:{self._port}: {error}") from error
        finally:
            if writer is not None:
                writer.close()
        parts = head.split(b" ", 2)
        if len(parts) < 2 or not parts[1].isdigit():  # noqa: PLR2004 - version and status
            raise Unavailable("the gateway closed the connection without an answer")
        if int(parts[1]) in _REFUSED and b"application/problem+json" in head:
            # After a restart of this server the gateway does not know its token for some seconds.
            raise Unavailable("the gateway does not let the probe in yet")
        return int(parts[1])


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Status line and headers."""
    head = b""
    while (line := await reader.readline()).strip():
        head += line
    return head


def _own_certificate() -> ssl.SSLContext:
    # The address is our own listener's; a certificate that has expired must not make every workspace unready.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
