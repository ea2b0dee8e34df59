"""The role `goproxy` of `mooring up`: the module proxy behind the gateway, as `goproxy.toml` below home wants it.

It never ends because of what is wrong with it: it says why on every request and at `/-/healthz`, and tries again when
the file changes. A file that became wrong leaves the last good settings in force.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from mooring.control.tasks import Tasks
from mooring.errors import MooringError, Unavailable
from mooring.goproxy import team
from mooring.goproxy.clearance import cleared
from mooring.goproxy.operations_app import OperationsApp
from mooring.goproxy.ports import FullStore
from mooring.goproxy.reported import reported
from mooring.goproxy.responses import refuse, reply
from mooring.server.files import make_folders
from mooring.server.goproxy import BACKLOG, build, counted, http_server
from mooring.server.lifetime import Lifetime
from mooring.settings import Installation

log = structlog.get_logger(__name__)

_LOOK_S = 1.0
_AGAIN_S = 20.0
"""Seconds until another try with the same file: a go command may have been installed, a disk emptied."""
_HEALTH = b"/-/healthz"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Switch:
    """Passes requests to the proxy of the settings in force; without one it refuses with `problem`."""

    def __init__(self) -> None:
        self.app: App | None = None
        self.administration: App | None = None
        self.store: FullStore | None = None
        self.problem = "the module proxy is starting"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["raw_path"].partition(b"?")[0] == _HEALTH:
            # Asked every few seconds for ever: no line of the log, and no request that anybody would count.
            await self._say_how_it_is(send)
        elif self.app is None:
            await refuse(send, Unavailable(self.problem))
        else:
            await self.app(scope, receive, send)

    async def _say_how_it_is(self, send: Send) -> None:
        try:
            if self.problem or self.store is None:
                raise Unavailable(self.problem)
            await self.store.healthy()
        except MooringError as error:
            await refuse(send, error)
        else:
            await reply(send, 200, [(b"content-type", b"text/plain; charset=utf-8")], b"ok\n")

    async def administer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What `mooring server` asks over the administration's socket."""
        if self.administration is not None:
            await self.administration(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(send, Unavailable(self.problem))


async def run(installation: Installation, lifetime: Lifetime) -> None:
    """Serve until this process should end.

    Raises:
        OSError: the sockets below home cannot be made.
    """
    home = installation.home
    make_folders(home)
    switch = Switch()
    with _listening(home.modules_socket) as front, _listening(home.modules_admin_socket) as back:
        server, office = http_server(switch), http_server(switch.administer)
        async with Tasks("goproxy-role") as tasks:
            serving = tasks.spawn("uvicorn", server.serve(sockets=[front]))
            administering = tasks.spawn("administration", office.serve(sockets=[back]))
            tasks.forever("settings", keep(installation, switch))
            await lifetime.ended()
            server.should_exit = office.should_exit = True
            await serving
            await administering


async def keep(installation: Installation, switch: Switch) -> None:
    """Have `switch` serve what the file says, for ever."""
    file = installation.home.modules_settings
    while True:
        seen = team.stamp(file)
        try:
            await _serve(installation, switch, seen)
        except (MooringError, OSError) as error:
            switch.app = switch.administration = None
            # An earlier process that was killed may have left its own.
            installation.home.modules_policy.unlink(missing_ok=True)
            switch.problem = f"the module proxy does not work: {_text(error)}"
            log.error("not serving", error=_text(error))  # noqa: TRY400 - the text names file, line and remedy
            await _changed(file, seen, within_s=_AGAIN_S)


async def _serve(installation: Installation, switch: Switch, seen: team.Stamp | None) -> None:
    """Serve what the file says until it says something else that can be read."""
    home, wanted = installation.home, team.read(installation.home.modules_settings)
    if not wanted.enabled:
        home.modules_policy.unlink(missing_ok=True)
        switch.problem = f"the module proxy is switched off in {home.modules_settings.name}"
        await _next(home.modules_settings, seen, switch)
        return
    config = wanted.config(home, go_command(installation))
    async with cleared(home.modules_policy, config), build(config) as goproxy, counted(goproxy, config):
        switch.app, switch.store, switch.problem = goproxy.app, goproxy.store, ""
        switch.administration = OperationsApp(goproxy.operations)
        goproxy.operations.settings_problem = lambda: switch.problem
        log.info("serving", store=str(config.root), private=config.private)
        with reported(home.modules_hits, goproxy.telemetry):
            await _next(home.modules_settings, seen, switch)
        switch.app = switch.administration = None
        switch.problem = "the module proxy takes up new settings: try again"


async def _next(file: Path, seen: team.Stamp | None, switch: Switch) -> None:
    """Return once the file changed into one that can be read."""
    while True:
        await _changed(file, seen)
        seen = team.stamp(file)
        try:
            team.read(file)
        except MooringError as error:
            switch.problem = f"{error.detail} (the settings before that are in force)"
            log.error("settings not taken", error=error.detail)  # noqa: TRY400 - a person's mistake has no stack
        else:
            return


async def _changed(file: Path, seen: team.Stamp | None, within_s: float = float("inf")) -> None:
    # One look a second costs less than a watch that some file systems do not have.
    while team.stamp(file) == seen and within_s > 0:
        await asyncio.sleep(_LOOK_S)
        within_s -= _LOOK_S


def _text(error: MooringError | OSError) -> str:
    if isinstance(error, MooringError):
        return error.detail
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def go_command(installation: Installation) -> Path:
    """The go command: the set-up's, else that of PATH."""
    installed = installation.go / "bin/go"
    return installed if installed.exists() else Path("go")


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
            path.unlink(missing_ok=True)
