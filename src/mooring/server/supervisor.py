"""The supervisor of `mooring up`: binds the public socket, starts server, gateway and module proxy, starts them again.

It is the only process that stays root when started as root, and does nothing else there than to bind, to prepare the
workspaces' cgroup and to start children as somebody else. It reads no input but signals.

Children get, as open files: the settings, the lifeline (a pipe whose other end closes with the supervisor, however it
dies), and, the gateway, the listening sockets.
"""

import asyncio
import errno
import os
import pwd
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from mooring.control.backoff import Backoff
from mooring.control.tasks import Tasks
from mooring.errors import OUTCOMES, Misconfigured
from mooring.server.lifetime import REPLACED, held
from mooring.settings import Installation, child_environment, dump, this_user

log = structlog.get_logger(__name__)

_RESTART = Backoff(first=0.1, most=5.0)
_STEADY_S = 30.0
_PATIENCE_S = 15.0
_MISCONFIGURED = OUTCOMES[Misconfigured].exit
PYTHON = (sys.executable, "-P")
"""What a child's program begins with. Without -P a file of the folder that we were started in passes for a module."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that everything but the supervisor runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def account(name: str | None) -> Account:
    """Who the children run as: ourselves, or as root the user `name`.

    Raises:
        Misconfigured: as root, when that user does not exist or is root; else, when we have no name.
    """
    if os.geteuid() != 0:
        me = this_user()
        if name not in {None, me.pw_name}:
            raise Misconfigured("only root can start Mooring as another user", field="--user")
        return Account(me.pw_name, me.pw_uid, me.pw_gid, tuple(os.getgroups()), me.pw_dir)
    try:
        entry = pwd.getpwnam(name or "mooring")
    except KeyError:
        raise Misconfigured(
            f"there is no user {name or 'mooring'}: useradd --system mooring, or name one with --user", field="--user"
        ) from None
    if entry.pw_uid == 0:
        raise Misconfigured("Mooring's parts never run as root: name another user", field="--user")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def bind(address: str, port: int) -> socket.socket:
    """The listening socket, which outlives every nginx.

    Raises:
        Misconfigured: when the address is in use, is not ours, or the port needs root.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        field, remedy = "--port", 'Another port: make up ARGS="--port N"'
        if error.errno == errno.EADDRNOTAVAIL:
            field, remedy = "--bind", "ip addr lists the addresses of this machine"
        raise Misconfigured(f"cannot listen on {address}:{port}: {error.strerror}. {remedy}", field=field) from error
    listener.settimeout(0)
    return listener


def identity(who: Account) -> dict[str, Any]:
    """What makes a child that user's, for `subprocess` and its like."""
    environment = {"env": child_environment(who.home, who.name)}
    if os.geteuid() != 0:
        return environment
    return {**environment, "user": who.uid, "group": who.gid, "extra_groups": list(who.groups), "umask": 0o077}


@contextmanager
def settings_file(installation: Installation) -> Iterator[int]:
    """The settings as an open file that a child inherits: a database password belongs in no argument list."""
    settings = os.memfd_create("mooring-settings", 0)
    try:
        os.write(settings, dump(installation))
        yield settings
    finally:
        os.close(settings)


class Supervisor:
    """Runs the three children until it is told to stop. `announce` is called once, with the signed-in URL.

    `program` is what a child is, before the role's name and its descriptors.
    """

    def __init__(
        self,
        installation: Installation,
        who: Account,
        announce: Callable[[str], None],
        program: Sequence[str] = (*PYTHON, "-m", "mooring.server.role"),
    ) -> None:
        self._program = tuple(program)
        self._installation = installation
        self._who = who
        self._announce = announce
        self._stopping = asyncio.Event()
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._starting = asyncio.Lock()
        self._failed = False
        self._server_ends_by = signal.SIGTERM
        self._announced = asyncio.Event()
        self._ready = os.pipe()
        self._lifeline = os.pipe()

    async def run(self, listener: socket.socket, modules: socket.socket | None = None) -> None:
        """Until SIGTERM or SIGINT; then the server first (it stops the workspaces), the gateway last.

        Until REPLACED; then in the same order, and the workspaces run on. `modules` is the socket of the installation's
        `modules_port`.

        Raises:
            Misconfigured: a child cannot begin with these settings.
        """
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # With nohup the terminal's end is not ours.
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(REPLACED, self._replaced)
        fds = {"--listener": listener.fileno()}
        if modules is not None:
            fds["--modules"] = modules.fileno()
        async with Tasks("supervisor", stop_within_s=60) as tasks:
            _ready = tasks.spawn("ready", self._wait_until_ready())
            tasks.forever("gateway", self._keep("gateway", fds))
            tasks.forever("server", self._keep("server", {"--ready": self._ready[1]}))
            tasks.forever("goproxy", self._keep_modules())
            await self._stopping.wait()
            await self._stop_server()
            for name in ("goproxy", "gateway"):
                await self._stop(name)
        if self._failed:
            raise Misconfigured("Mooring was not started: see above, and mooring doctor")

    def _replaced(self) -> None:
        if not self._stopping.is_set():
            log.info("another Mooring takes over; workspaces run on")
            self._server_ends_by = REPLACED
            self._stopping.set()

    async def _wait_until_ready(self) -> None:
        reader = asyncio.StreamReader()
        with os.fdopen(self._ready[0], "rb") as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    line = await reader.readline()
            except TimeoutError:
                # A full disk, a database that is away: the server tries on, and the person must not guess.
                log.warning("not ready yet; mooring doctor says why", log=str(self._installation.home.logs))
                line = await reader.readline()
            transport.close()
        self._announced.set()
        try:
            self._announce(line.decode().strip())
        except OSError as error:
            log.warning("nobody reads where Mooring is; mooring console signs in", error=error.strerror)

    async def _keep_modules(self) -> None:
        # Nobody waits for modules before there is a workspace; the processors are the others' until then.
        await self._announced.wait()
        await self._keep("goproxy", {})

    async def _keep(self, role: str, fds: Mapping[str, int]) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            status = await self._lived(role, fds)
            if self._stopping.is_set():
                break
            if status == _MISCONFIGURED and not self._announced.is_set():
                # Another try finds the same settings; the child has said what is wrong with them. Later it is what
                # they lead to, a database that was damaged: workspaces that are open must not go for it.
                self._failed = True
                self._stopping.set()
                break
            attempt = 0 if loop.time() - started > _STEADY_S else attempt + 1
            if status is not None:
                log.error("child ended", role=role, status=status)
            await asyncio.sleep(_RESTART.delay(attempt))
        await self._stopping.wait()
        # Stays until cancelled: an eternal task's end would be reported as an incident.
        await asyncio.Event().wait()

    async def _lived(self, role: str, fds: Mapping[str, int]) -> int | None:
        """The status with which one life of a child ended; None when it could not begin: there is no memory for it."""
        try:
            async with self._starting:
                if self._stopping.is_set():
                    return None
                await self._start(role, fds)
        except OSError as error:
            log.error("child not started", role=role, error=str(error))  # noqa: TRY400 - no stack helps
            return None
        return await self._children[role].wait()

    async def _start(self, role: str, fds: Mapping[str, int]) -> None:
        with settings_file(self._installation) as settings:
            given = {"--settings": settings, "--lifeline": self._lifeline[0], **fds}
            arguments = [f"{name}={fd}" for name, fd in given.items()]
            with held():
                self._children[role] = await asyncio.create_subprocess_exec(
                    *self._program,
                    role,
                    *arguments,
                    pass_fds=tuple(given.values()),
                    stdin=asyncio.subprocess.DEVNULL,
                    # A session of its own: Ctrl-C in the terminal is for the supervisor, which stops them in order.
                    start_new_session=True,
                    **identity(self._who),
                )

    async def _stop_server(self) -> None:
        # Of a start that failed no workspace is to be the victim.
        by = REPLACED if self._failed else self._server_ends_by
        if await self._stop("server", by) or by is REPLACED:
            return
        log.warning("the server had ended: it is started once more, to stop the workspaces")
        with suppress(OSError):
            async with self._starting:
                await self._start("server", {})
        await self._stop("server", by)

    async def _stop(self, role: str, by: signal.Signals = signal.SIGTERM) -> bool:
        """Whether it did what it does at its end, or had the time for it; not when it ended by itself."""
        # One that is just being started is to be stopped as well.
        async with self._starting:
            child = self._children.get(role)
        if child is None or child.returncode is not None:
            return False
        child.send_signal(by)
        try:
            async with asyncio.timeout(40):
                await child.wait()
        except TimeoutError:
            log.warning("child did not stop, killed", role=role)
            child.kill()
            await child.wait()
            return True
        return child.returncode == 0
