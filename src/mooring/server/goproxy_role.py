"""The role `goproxy` of `mooring up`: the module proxy behind the gateway, as `goproxy.toml` below home wants it.

It never ends because of what is wrong with it: it says why on every request and at `/-/healthz`, and tries again when
the file changes. What became wrong leaves the last good settings in force, and a proxy answers until the next one can.
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from mooring.control.tasks import Tasks
from mooring.errors import MooringError, Unavailable
from mooring.goproxy import team
from mooring.goproxy.clearance import cleared
from mooring.goproxy.config import Config
from mooring.goproxy.operations_app import OperationsApp
from mooring.goproxy.reported import reported
from mooring.goproxy.responses import refuse, reply
from mooring.goproxy.stamps import Stamp, stamp
from mooring.goproxy.tallies import Tallies
from mooring.goproxy.telemetry import Telemetry
from mooring.model.toml import BadToml
from mooring.server.door import BACKLOG, answering
from mooring.server.files import make_folders
from mooring.server.goproxy import Goproxy, bounded, build, counted
from mooring.server.lifetime import Lifetime
from mooring.server.modules_health import STARTING
from mooring.server.occupied import Occupied
from mooring.settings import Home, Installation, go_command

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_POLL_S = 0.1
_AGAIN_S = 20.0
"""Seconds until another try with the same file: a go command may have been installed, a disk emptied."""
_LAST_DOWNLOADS_S = 600.0
"""What began under the settings before may go on for so long: 500 MB, the largest zip, at a megabyte a second."""
_HEALTH = b"/-/healthz"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Switch:
    """Passes requests to the proxy of the settings in force; without one it refuses with `problem`."""

    def __init__(self) -> None:
        self.goproxy: Goproxy | None = None
        self.problem = STARTING
        """What is wrong with the newest settings."""
        self._inside = Occupied()
        self._administration: App | None = None

    def serve(self, goproxy: Goproxy) -> Occupied:
        """Pass requests to this one from now on; those who are still inside the one before."""
        left = self._leave()
        self.goproxy, self.problem = goproxy, ""
        self._administration = OperationsApp(goproxy.operations)
        goproxy.operations.settings_problem = self._trouble
        return left

    def refuse(self, problem: str) -> Occupied:
        """Pass requests to nobody; those who are still inside the one before."""
        left = self._leave()
        self.goproxy = self._administration = None
        self.problem = problem
        return left

    def _leave(self) -> Occupied:
        if self.goproxy is not None:
            # It goes by limits and patterns that hold no longer: what became private since must stay.
            self.goproxy.eviction.end()
        left, self._inside = self._inside, Occupied()
        return left

    def _trouble(self) -> str:
        return self.problem or (self.goproxy.rules.problem if self.goproxy else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["raw_path"].partition(b"?")[0] == _HEALTH:
            # Asked every few seconds for ever: no line of the log, and no request that anybody would count.
            await self._say_how_it_is(send)
        elif self.goproxy is None:
            await refuse(send, Unavailable(self.problem))
        else:
            with self._inside.entered():
                await self.goproxy.app(scope, receive, send)

    async def _say_how_it_is(self, send: Send) -> None:
        try:
            if (trouble := self._trouble()) or self.goproxy is None:
                raise Unavailable(trouble)
            await self.goproxy.store.healthy()
        except MooringError as error:
            await refuse(send, error)
        else:
            await reply(send, 200, [(b"content-type", b"text/plain; charset=utf-8")], b"ok\n")

    async def administer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What `mooring server` asks over the administration's socket."""
        if self._administration is not None:
            with self._inside.entered():
                await self._administration(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(send, Unavailable(self.problem))


class InForce:
    """The settings in force and the proxy that serves them, until the end of the block."""

    def __init__(self, installation: Installation, switch: Switch, telemetry: Telemetry) -> None:
        self._installation = installation
        self._switch = switch
        self._telemetry = telemetry
        self._built = AsyncExitStack()
        self._wired = AsyncExitStack()
        self._before = Tasks("goproxy-before")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A disk that became read-only keeps the gateway's file: the parts must end all the same.
        try:
            await self._stop("the module proxy ends")
        finally:
            try:
                await self._built.aclose()
            finally:
                await self._before.stop()

    async def take_up(self, wanted: team.Team) -> None:
        """Serve as `wanted`.

        Raises:
            MooringError, OSError: it cannot be; what was in force before still is, unless the disk fails in between.
        """
        home = self._installation.home
        if not wanted.enabled:
            await self._leave(f"the module proxy is switched off in {home.modules_settings.name}")
            return
        config = wanted.config(home, go_command(self._installation.go))
        async with AsyncExitStack() as built:
            goproxy = await built.enter_async_context(build(config, telemetry=self._telemetry))
            # The file for the gateway and the limits of the store are one proxy's at a time.
            await self._wired.aclose()
            try:
                await self._wired.enter_async_context(_wired(home, config, goproxy))
            except Exception:
                await self._leave("the module proxy takes up new settings: try again")
                raise
            self._retire(self._switch.serve(goproxy))
            self._built = built.pop_all()
        log.info("serving", store=str(config.root), private=config.private)

    def stay(self, why: str) -> None:
        """What the file says cannot be served."""
        if self._switch.goproxy is None:
            self._switch.refuse(f"the module proxy does not work: {why}")
            # On a disk that became read-only it stays; nobody would look at the settings ever again.
            with suppress(OSError):
                self._withdraw()
        else:
            self._switch.problem = f"{why} (the settings before that are in force)"
        log.error("settings not taken", error=why)

    async def _leave(self, problem: str) -> None:
        self._retire(await self._stop(problem))

    async def _stop(self, problem: str) -> Occupied:
        # What is refused here must not be had from the gateway.
        await self._wired.aclose()
        self._withdraw()
        return self._switch.refuse(problem)

    def _retire(self, inside: Occupied) -> None:
        """Keep the parts for those who are inside, and no longer."""
        _ = self._before.spawn("parts", _last(self._built.pop_all(), inside))

    def _withdraw(self) -> None:
        # An earlier process that was killed may have left its own.
        self._installation.home.modules_policy.unlink(missing_ok=True)


async def _last(built: AsyncExitStack, inside: Occupied) -> None:
    try:
        if cut_off := await inside.left(_LAST_DOWNLOADS_S):
            log.warning("requests under earlier settings are cut off", requests=cut_off, after_s=_LAST_DOWNLOADS_S)
    finally:
        await built.aclose()


@asynccontextmanager
async def _wired(home: Home, config: Config, goproxy: Goproxy) -> AsyncIterator[None]:
    """What only the newest settings may decide: what the gateway serves, and what has to leave the store."""
    async with cleared(home.modules_policy, config, goproxy.rules), bounded(goproxy, config):
        yield


async def run(installation: Installation, lifetime: Lifetime) -> None:
    """Serve until this process should end.

    Raises:
        OSError: the sockets below home cannot be made.
    """
    home = installation.home
    make_folders(home)
    with _lock(home) as lock:
        if await _alone(lock, lifetime):
            await _run(installation, lifetime)


async def _run(installation: Installation, lifetime: Lifetime) -> None:
    home, switch = installation.home, Switch()
    with _listening(home.modules_socket) as front, _listening(home.modules_admin_socket) as back:
        async with _counting(home) as telemetry, Tasks("goproxy-role") as tasks:
            tasks.forever("settings", keep(installation, switch, telemetry))
            # Closed one after the other, the second door would take new connections until the first is empty.
            async with asyncio.TaskGroup() as doors:
                doors.create_task(_answer(switch, front, lifetime), name="front")
                doors.create_task(_answer(switch.administer, back, lifetime), name="back")


@asynccontextmanager
async def _counting(home: Home) -> AsyncIterator[Telemetry]:
    """What counts for the proxies of all settings, one after the other, and for the gateway."""
    telemetry = Telemetry(Tallies())
    async with counted(telemetry.tallies, home.modules):
        with reported(home.modules_hits, telemetry):
            yield telemetry


async def _answer(app: App, listener: socket.socket, lifetime: Lifetime) -> None:
    async with answering(app, listener):
        await lifetime.ended()


@contextmanager
def _lock(home: Home) -> Iterator[int]:
    fd = os.open(home.run / "goproxy.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


async def _alone(lock: int, lifetime: Lifetime) -> bool:
    """Wait for the end of an earlier role, whose supervisor was killed: it would take our sockets away as its own.

    False: this one is to end before that.
    """
    while not _locked(lock):
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await lifetime.ended()
                return False
    return True


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def keep(installation: Installation, switch: Switch, telemetry: Telemetry) -> None:
    """Have `switch` serve what the file says, for ever."""
    file = installation.home.modules_settings
    async with InForce(installation, switch, telemetry) as in_force:
        while True:
            seen, within_s = stamp(file), _AGAIN_S
            try:
                await in_force.take_up(team.read(file))
                within_s = inf
            except (MooringError, OSError) as error:
                in_force.stay(_text(error))
            except Exception as error:
                # A mistake of ours: ended by it, nobody would look at the settings ever again.
                log.exception("settings not taken up")
                in_force.stay(f"{type(error).__name__}: {error}")
            await _changed(file, seen, within_s)


async def _changed(file: Path, seen: Stamp | None, within_s: float) -> None:
    # One look a second costs less than a watch that some file systems do not have.
    while stamp(file) == seen and within_s > 0:
        await asyncio.sleep(_LOOK_S)
        within_s -= _LOOK_S


def _text(error: MooringError | OSError) -> str:
    if isinstance(error, BadToml):
        return error.detail
    if isinstance(error, MooringError):
        # Files name themselves; of a value alone nobody could tell which one is meant.
        return f"{error.field}: {error.detail}" if error.field else error.detail
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        # Bound beside and renamed: nobody finds a socket that does not listen yet, or that others may write to.
        beside = path.with_name(f"{path.name}.new")
        beside.unlink(missing_ok=True)
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(BACKLOG)
        beside.replace(path)
        try:
            yield listener
        finally:
            # On a disk that became read-only it stays, and leads nowhere.
            with suppress(OSError):
                path.unlink(missing_ok=True)
