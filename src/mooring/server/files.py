"""What the server writes below home at its start: folders, and where it can be reached."""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from mooring.accounts.disk import SECRET_BYTES, gateway_token, read_secret, write_secret
from mooring.errors import Misconfigured
from mooring.settings import Home, Installation

log = structlog.get_logger(__name__)


def make_folders(home: Home) -> None:
    """Every folder of home, 0700; that of the containers 0755.

    Raises:
        Misconfigured: when one cannot be made or written.
    """
    private = (home.run, home.run / "w", home.keys, home.logs, home.gateway, home.templates, home.workspaces)
    for folder in (*private, home.modules, home.containers_socket.parent):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Users in a container have other numbers; on this machine nobody comes through the folder above.
            folder.chmod(0o755 if folder == home.containers_socket.parent else 0o700)
        except OSError as error:
            raise Misconfigured(f"{folder}: {error.strerror}", field="MOORING_HOME") from error


def write_endpoint(installation: Installation) -> None:
    """Tell the command line on this machine where the server is, and which authority vouches for it."""
    home, listen = installation.home, installation.listen
    # One that an earlier start made vouches for no certificate that was given.
    vouches = listen.tls and listen.tls_key is None
    document = {
        "url": listen.url(listen.domain, ""),
        "console": listen.domain,
        "address": listen.address,
        "port": listen.port,
        "authority": str(home.authority) if vouches else None,
    }
    write_secret(home.run / "endpoint.json", json.dumps(document))


def remove_endpoint(home: Home) -> None:
    """Tell the command line that nothing runs here any more, and leave no socket that nobody listens at."""
    try:
        (home.run / "endpoint.json").unlink(missing_ok=True)
        own = (home.api_socket, home.modules_socket, home.modules_admin_socket, home.containers_socket)
        for path in (*own, *home.run.glob("w/*/*.sock")):
            if not _answers(path):
                path.unlink(missing_ok=True)
    except OSError as error:
        # On a disk that became read-only they stay, and say nothing that the next start does not correct.
        log.warning("not removed", path=error.filename, error=error.strerror)


def _answers(path: Path) -> bool:
    # A workspace that could not be stopped is found by the next server at its socket.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def gateway_credential(home: Home) -> str:
    """The credential between gateways and the server, made by whichever of both asks first."""
    with _exclusive(home.keys):
        return gateway_token(home.keys)


def modules_key(home: Home) -> bytes:
    """What the workspaces' tokens for the module proxy are made from.

    Raises:
        Misconfigured: others may read it, or it is none.
        Unavailable: it cannot be written.
    """
    path = home.keys / "modules-key"
    with _exclusive(home.keys):
        key = read_secret(path)
        if not key:
            key = secrets.token_hex(SECRET_BYTES)
            write_secret(path, key + "\n")
    try:
        return bytes.fromhex(key)
    except ValueError:
        raise Misconfigured(f"{path} is damaged: remove it, and restart the workspaces") from None


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Two that found none at the same time would each keep its own.
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
