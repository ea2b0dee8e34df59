"""What a route may not name, whoever publishes it: Mooring's own files, sockets and listener.

A route is data from outside. A folder of files, a socket or an address in it is read and reached with the gateway's
rights, which are more than its publisher's.
"""

import ipaddress
import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from mooring.model.routes import PORT, Backend, Route

WORKSPACES = "workspaces"
"""The one source whose routes Mooring makes itself."""
FILE = "file"
"""The operator's: whoever writes it could read the files anyway."""
_SYSTEM = Path("/run")


@dataclass(frozen=True, slots=True)
class Rules:
    """`home` is MOORING_HOME, `address` and `port` those of the public listener, `operators` the operator's sources."""

    home: Path
    address: str
    port: int
    operators: AbstractSet[str] = frozenset({FILE})

    def refusal(self, source: str, route: Route) -> str | None:
        """Why `source` may not publish `route`; None when it may."""
        if source == WORKSPACES:
            return None
        return next((why for backend in route.targets() if (why := self._of(source, backend))), None)

    def reaches_us(self, host: str, port: int | None) -> bool:
        """Whether our own listener is there; `port` None is any that a request asks for."""
        if port is not None and port != self.port:
            return False
        ip = _ip(host)
        return ip is not None and (ip.is_loopback or ip.is_unspecified or ip == _ip(self.address))

    def _of(self, source: str, backend: Backend) -> str | None:
        if backend.listener_of is not None or backend.identity is not None:
            return "listener_of and identity are for the routes of workspaces"
        if backend.files is not None:
            if source not in self.operators:
                return "files are for the operator's own route file: publish an address instead"
            return self._folder(backend.files)
        if backend.unix is not None:
            return self._socket(source, Path(backend.unix))
        return self._address(source, backend.address or "")

    def _socket(self, source: str, path: Path) -> str | None:
        if _below(path, self.home):
            return f"a socket below {self.home} is Mooring's own"
        if source not in self.operators and _below(path, _SYSTEM):
            return f"a socket below {_SYSTEM} is a service of this machine, Docker's among them"
        return None

    def _folder(self, files: str) -> str | None:
        folder = Path(files)
        # Also a folder that holds ours: keys and everybody's workspaces would be files in it.
        if _below(folder, self.home) or _below(self.home, folder):
            return f"files must neither be below {self.home} nor hold it"
        return None

    def _address(self, source: str, address: str) -> str | None:
        host, _, port = address.rpartition(":")
        if self.reaches_us(host, None if port == PORT else int(port)):
            return (
                "the address is Mooring's own" if port != PORT else "{port} would reach every service of this machine"
            )
        ip = _ip(host)
        if source not in self.operators and ip is not None and (ip.is_link_local or ip.is_multicast):
            return "a link-local address may be the cloud's metadata"
        return None


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if host.lower() == "localhost":
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _below(path: Path, folder: Path) -> bool:
    # Links are followed: another name of our folder is still ours. `Path.resolve` would raise for one that leads to
    # itself, and whoever owns a socket's folder could end every gateway's stream with it.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
