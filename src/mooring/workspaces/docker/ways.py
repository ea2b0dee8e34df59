"""What is opened at a container that runs: the way to its 127.0.0.1, and its own to the module proxy."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from mooring.control.tasks import Tasks
from mooring.errors import MooringError
from mooring.settings import Home
from mooring.workspaces.docker import container as shape
from mooring.workspaces.docker import modules
from mooring.workspaces.docker.container import DATA
from mooring.workspaces.docker.engine import DockerEngine
from mooring.workspaces.docker.exec import run_step
from mooring.workspaces.docker.network import Guard

log = structlog.get_logger(__name__)

Container = Mapping[str, Any]
Tell = Callable[[Container, str], Awaitable[None]]
_NO_FORWARDER = (
    "the image has no socat, so Go modules are out of reach: make images, or add it to your own; "
    "a workspace that sets GOPROXY needs none"
)


def asks_modules(environment: Mapping[str, str]) -> bool:
    """Whether a container with these variables asks the module proxy."""
    return environment.get("GOPROXY", "").startswith(modules.ADDRESS)


class Ways:
    """Opens them once each time that a container begins to run, whoever has started it and whoever was killed then.

    `opened` is told the run (`container.run_of`) that they were opened in, for the next server; `notice` what a person
    can do about what cannot be.
    """

    def __init__(
        self, engine: DockerEngine, guard: Guard, home: Home, tasks: Tasks, *, opened: Tell, notice: Tell
    ) -> None:
        self._engine = engine
        self._guard = guard
        self._socket = home.containers_socket
        self._tasks = tasks
        self._tell_opened = opened
        self._notice = notice
        self._begun: dict[str, str] = {}

    def open(self, container: Container, known: str) -> None:
        """Have them opened, unless they are: `known` is the run that they were last opened in."""
        workspace_id, run = shape.workspace_of(container), shape.run_of(container)
        if run not in (known, self._begun.get(workspace_id)):
            self._begun[workspace_id] = run
            _ = self._tasks.spawn(f"ways of {workspace_id}", self._both(container, run))

    def forget(self, workspace_id: str) -> None:
        """It is gone."""
        self._begun.pop(workspace_id, None)

    async def _both(self, container: Container, run: str) -> None:
        shut = False
        for way in (self._forward, self._loopback):
            try:
                await way(container)
            except MooringError as error:
                # A workspace that was stopped meanwhile is no news.
                log.info("a way of a container is shut", container=container["Id"], error=error.detail)
                shut = True
        if not shut:
            await self._tell_opened(container, run)

    async def _loopback(self, container: Container) -> None:
        await self._guard.open_loopback(container["Id"])

    async def _forward(self, container: Container) -> None:
        variables = dict(text.partition("=")[::2] for text in container["Config"]["Env"])
        if not asks_modules(variables):
            return
        status = await run_step(self._engine, container["Id"], DATA, modules.forwarder(self._socket))
        if status == modules.NO_SOCAT:
            await self._notice(container, _NO_FORWARDER)
