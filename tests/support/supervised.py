"""A supervisor in a process of its own, with children that are this file: they write down what happens to them.

`start` runs one; its children read `FOLDER/<role>.behaviour`: `stay`, `die`,
`misconfigured` or `ready` (stay, and say twice that it is ready).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from mooring.errors import Misconfigured
from mooring.server.lifetime import REPLACED
from mooring.server.logs import to_terminal
from mooring.server.supervisor import Supervisor, account, bind
from mooring.settings import Home, Installation, Listen, load

_HERE = Path(__file__)


def start(
    folder: Path, *by: str, server: str = "stay", gateway: str = "stay", goproxy: str = "stay", slowly: bool = False
) -> subprocess.Popen[str]:
    """Start a supervisor whose children behave so, through the program `by` when one is given.

    With `slowly` a child makes the file `begins`, and is itself only half a second later.
    """
    (folder / "server.behaviour").write_text(server)
    (folder / "gateway.behaviour").write_text(gateway)
    (folder / "goproxy.behaviour").write_text(goproxy)
    # What starts the children, which a test may take away.
    first = f"touch {folder}/begins; sleep 0.5" if slowly else ":"
    # Not dash, which lets through the signals that are held for whoever it is started as.
    (folder / "python").write_text(f'#!/bin/bash\n{first}\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    # Where the tests themselves run under nohup a hangup is ignored, and nobody would stop.
    by = by or ("env", "--default-signal=HUP")
    command = [*by, sys.executable, "-P", str(_HERE), "supervisor", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(folder: Path) -> list[list[str]]:
    """What the children wrote so far: role, pid, event."""
    path = folder / "journal"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _supervise(folder: Path) -> None:
    installation = Installation(Home(folder), Listen(port=1234), Path("editor"), database_url="postgresql://secret@x/y")
    to_terminal()
    program = (str(folder / "python"), "-P", str(_HERE), "child", str(folder))
    supervisor = Supervisor(installation, _myself(), lambda url: print(f"ready {url}", flush=True), program)  # noqa: T201
    with bind("127.0.0.1", 0) as listener, bind("127.0.0.1", 0) as modules:
        try:
            asyncio.run(supervisor.run(listener, modules))
        except Misconfigured as error:
            sys.exit(error.detail)


def _myself():  # noqa: ANN202 - an Account; root is one here, which only a test may say
    if os.geteuid() != 0:
        return account(None)
    from mooring.server.supervisor import Account  # noqa: PLC0415

    return Account("root", 0, 0, (), "/root")


def _child(folder: Path, role: str, fds: dict[str, int]) -> None:
    def note(event: str) -> None:
        with (folder / "journal").open("a") as journal:
            journal.write(f"{role} {os.getpid()} {event}\n")

    with os.fdopen(fds["settings"], "rb") as settings:
        settings.seek(0)
        assert load(settings.read()).database_url == "postgresql://secret@x/y"
    note("started")
    behaviour = (folder / f"{role}.behaviour").read_text()
    if behaviour in {"die", "misconfigured"}:
        sys.exit(1 if behaviour == "die" else 3)
    signal.signal(signal.SIGTERM, lambda *_: (note("told"), sys.exit(0)))
    signal.signal(REPLACED, lambda *_: (note("replaced"), sys.exit(0)))
    signal.signal(signal.SIGINT, lambda *_: (note("interrupted"), sys.exit(0)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, REPLACED))
    if behaviour == "ready":
        note("ready")
        os.write(fds["ready"], b"http://first\nhttp://second\n")
    if "listener" in fds:
        ports = (socket.socket(fileno=fds[name]).getsockname()[1] for name in ("listener", "modules"))
        note(f"ports-{'-'.join(map(str, ports))}")
    note("stays")
    os.read(fds["lifeline"], 1)
    note("orphaned")


if __name__ == "__main__":
    if sys.argv[1] == "supervisor":
        _supervise(Path(sys.argv[2]))
    else:
        given = dict(item.removeprefix("--").split("=", 1) for item in sys.argv[4:])
        _child(Path(sys.argv[2]), sys.argv[3], {name: int(fd) for name, fd in given.items()})
