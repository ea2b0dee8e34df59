"""`mooring ssh`: OpenSSH to a workspace, through the API: no port is opened anywhere.

The client's ProxyCommand is `mooring ssh-proxy`, which runs `sshd.sh` in the workspace and carries its bytes. The
client's key pair, and the host keys that it knows, are in a folder of their own beside `config.toml`.
"""

import asyncio
import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mooring.api.http.schemas import Workspace
from mooring.cli.client import Api, connect
from mooring.cli.completion import WorkspaceName
from mooring.cli.endpoint import Endpoint, find
from mooring.cli.exec import SHELL, STDERR, STDOUT, Call, joined, opened, run
from mooring.cli.language import _
from mooring.cli.output import note
from mooring.cli.plain import clean
from mooring.errors import Conflict, Misconfigured, MooringError
from mooring.model.names import is_id
from mooring.model.workspace import Phase
from mooring.settings import command_environment, remote

SERVER = (Path(__file__).parent / "sshd.sh").read_text()
# Who sshd will run as, and whether that user may give away a terminal: without root sshd gives up when /dev/pts is
# mounted without the group of terminals.
ABOUT = """id -un
tty=$(getent group tty | cut -d: -f3)
[ "$(id -u)" = 0 ] || [ -z "$tty" ] || grep -q "^devpts /dev/pts .*gid=$tty[, ]" /proc/mounts || echo no terminal"""


@dataclass(frozen=True, slots=True)
class Account:
    """The workspace's user, and whether sshd can give that user a terminal."""

    name: str
    terminals: bool


def ssh(
    name: WorkspaceName,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help=_("Put it behind --; a shell when absent."))
    ] = None,
) -> None:
    """Become OpenSSH's client."""
    with connect() as api:
        found = api.workspace(name)
        who = account(api.endpoint, found)
        endpoint = api.endpoint
    if command is None and not who.terminals and os.isatty(0):
        note(_("(sshd cannot give a terminal there: /dev/pts has no group; this one comes without ssh)"))
        raise typer.Exit(run(endpoint, found.id, SHELL, tty=True))
    program = _program("ssh")
    given = [f"-o{option}={value}" for option, value in options(found.id, who.name).items()]
    sys.stdout.flush()
    os.execv(program, [program, *given, f"mooring.{found.name}", *(command or [])])  # noqa: S606 - no shell is wanted


def ssh_proxy(name: WorkspaceName) -> None:
    """Carry standard input and output to an sshd in the workspace."""
    if is_id(name):
        # What we wrote into ProxyCommand ourselves needs no look-up.
        endpoint, workspace = find(), name
    else:
        with connect() as api:
            endpoint, workspace = api.endpoint, api.workspace(name).id
    key = public_key(remote().folder / "ssh")
    call = Call(workspace, ("sh", "-c", SERVER, "sshd.sh", key))
    raise typer.Exit(asyncio.run(joined(endpoint, call)))


def entries(api: Api, workspaces: Sequence[Workspace], *, only: bool) -> str:
    """The entries of OpenSSH's configuration; with `only`, a workspace that does not run is an error."""
    passed = [f"{name}={value}" for name, value in command_environment().items()]
    blocks = []
    for item in workspaces:
        if item.phase is not Phase.running and not only:
            blocks.append(f"# mooring.{item.name} is {item.phase}: start it and run this again\n")
            continue
        given = options(item.id, account(api.endpoint, item).name, passed)
        lines = [f"Host mooring.{item.name}", *(f"  {option} {value}" for option, value in given.items())]
        blocks.append("".join(f"{line}\n" for line in lines))
    return "\n".join(blocks)


def options(workspace: str, user: str, passed: Sequence[str] = ()) -> dict[str, str]:
    """OpenSSH's options for a workspace; `passed` (NAME=value) is what the proxy must find in its environment."""
    folder = remote().folder / "ssh"
    public_key(folder)
    proxy = [*(["env", *passed] if passed else []), *_ourselves(), "ssh-proxy", workspace]
    return {
        "User": user,
        "ProxyCommand": shlex.join(proxy).replace("%", "%%"),
        "IdentityFile": _quoted(folder / "identity" / "key"),
        "IdentitiesOnly": "yes",
        # The name and the address of a workspace may come to mean another one; its id does not.
        "HostKeyAlias": f"mooring-{workspace}",
        "UserKnownHostsFile": _quoted(folder / "known_hosts"),
        "StrictHostKeyChecking": "accept-new",
        "LogLevel": "ERROR",
    }


def public_key(folder: Path) -> str:
    """The public half of the client's key pair, which is made at first need.

    Raises:
        Misconfigured: ssh-keygen is missing, or the folder cannot be written.
    """
    identity = folder / "identity"
    try:
        if not identity.exists():
            _make_pair(folder, identity)
        return (identity / "key.pub").read_text().strip()
    except OSError as error:
        raise Misconfigured(f"{identity}: {error.strerror}") from error


def account(endpoint: Endpoint, workspace: Workspace) -> Account:
    """Who the workspace's processes are.

    Raises:
        Conflict: it does not run.
    """
    if workspace.phase is not Phase.running:
        text = _("{name} is {phase}; start it: mooring workspace start {name} --wait")
        raise Conflict(text.format(name=workspace.name, phase=workspace.phase))
    name, *rest = asyncio.run(_output(endpoint, Call(workspace.id, ("sh", "-c", ABOUT)))).split("\n")
    return Account(name, terminals="no terminal" not in rest)


async def _output(endpoint: Endpoint, call: Call) -> str:
    written = {STDOUT: b"", STDERR: b""}
    async with opened(endpoint, call) as session:
        await session.write(b"")
        async for channel, data in session.output():
            written[channel] += data
    if session.status != 0:
        raise MooringError(clean(written[STDERR].decode(errors="replace")) or _("the workspace does not answer"))
    return written[STDOUT].decode(errors="replace")


def _make_pair(folder: Path, identity: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keygen = _program("ssh-keygen")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        Path(made, "pair").mkdir(mode=0o700)
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "mooring", "-f", f"{made}/pair/key"], check=True)
        try:
            Path(made, "pair").rename(identity)
        except OSError as error:
            # Another first connection was quicker; its pair is the pair.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _ourselves() -> list[str]:
    started = Path(sys.argv[0])
    if started.name == "mooring" and (program := shutil.which(started)):
        return [str(Path(program).absolute())]
    # Without -P a file of the folder that ssh is called in would pass for a module.
    return [sys.executable, "-P", "-m", "mooring"]


def _quoted(path: Path) -> str:
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Misconfigured(_("{name} is missing: apt-get install openssh-client").format(name=name))
    return found
