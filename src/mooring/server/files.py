"""What the server writes below home at its start: folders, and where it can be reached."""

import fcntl
import json
import os
from pathlib import Path

from mooring.accounts.disk import gateway_token, write_secret
from mooring.errors import Misconfigured
from mooring.settings import Home, Installation


def make_folders(home: Home) -> None:
    """Every folder of home, 0700.

    Raises:
        Misconfigured: when one cannot be made or written.
    """
    for folder in (home.run, home.run / "w", home.keys, home.logs, home.gateway, home.templates, home.workspaces):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise Misconfigured(f"{folder}: {error.strerror}", field="MOORING_HOME") from error


def write_endpoint(installation: Installation, authority: Path | None) -> None:
    """Tell the command line on this machine where the server is."""
    listen = installation.listen
    document = {
        "url": listen.url(listen.domain, ""),
        "console": listen.domain,
        "address": listen.address,
        "port": listen.port,
        "authority": str(authority) if authority else None,
    }
    write_secret(installation.home.run / "endpoint.json", json.dumps(document))


def remove_endpoint(home: Home) -> None:
    """Tell the command line that nothing runs here any more; the reverse of `write_endpoint`, and of the socket."""
    (home.run / "endpoint.json").unlink(missing_ok=True)
    home.api_socket.unlink(missing_ok=True)


def gateway_credential(home: Home) -> str:
    """The credential between gateways and the server, made by whichever of both asks first."""
    fd = os.open(home.keys, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Two that found none at the same time would each keep its own.
        fcntl.flock(fd, fcntl.LOCK_EX)
        return gateway_token(home.keys)
    finally:
        os.close(fd)
