"""The docker runtime of a machine whose engine may come after Mooring, or never.

Imports nothing of the engine's client: it costs 20 MB, which a laptop without Docker need not pay.
"""

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from mooring.control.clock import Clock, SystemClock
from mooring.errors import Unavailable
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.settings import Home
from mooring.workspaces.docker import crashes as deaths
from mooring.workspaces.ports import Engine, ExecSession, Observation, Usage
from mooring.workspaces.tail import chunks

log = structlog.get_logger(__name__)

LOOK_S = 1.0


class LateDocker:
    """An `Engine`: what `make` gives, made as soon as there is a `socket`. Enter it with `async with`.

    Before, and whenever the engine does not answer, only what it never began to start can be stopped and deleted;
    output is read from files, which need no engine.
    """

    def __init__(
        self,
        home: Home,
        socket: Path,
        make: Callable[[], Awaitable[AbstractAsyncContextManager[Engine]]],
        clock: Clock | None = None,
    ) -> None:
        self._home = home
        self._socket = socket
        self._make = make
        self._clock = clock or SystemClock()
        self._entering = asyncio.Lock()
        self._entered = AsyncExitStack()
        self._runtime: Engine | None = None

    async def __aenter__(self) -> Self:
        if not self.missing():
            await self._here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._entered.aclose()

    # Runtime

    def missing(self) -> str:
        # Not `exists`, which raises where the folder may not be looked into.
        return "" if os.access(self._socket, os.F_OK) else f"there is no Docker engine at {self._socket}: start one"

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        try:
            return await (await self._here()).apply(workspace, template)
        except Unavailable:
            if workspace.desired is Desired.running or self._was_begun(workspace.id):
                raise
            return Observation(workspace.id, workspace.generation, Phase.stopped)

    async def delete(self, workspace_id: str) -> None:
        try:
            await (await self._here()).delete(workspace_id)
        except Unavailable as error:
            if self._was_begun(workspace_id):
                folder = shlex.quote(str(self._home.workspace(workspace_id)))
                way_out = f"should it never come back, rm -r {folder} lets go of what the workspace has there"
                raise Unavailable(f"{error.detail}; {way_out}") from error

    async def watch(self) -> AsyncIterator[Observation]:
        while self._runtime is None and self.missing():
            await self._clock.sleep(LOOK_S)
        async for seen in (await self._here()).watch():
            yield seen

    # Inspector

    async def usage(self, workspace_id: str) -> Usage | None:
        return await (await self._here()).usage(workspace_id)

    async def owns_port(self, workspace_id: str, port: int) -> str | None:
        return await (await self._here()).owns_port(workspace_id, port)

    def watch_age_s(self) -> float:
        return self._runtime.watch_age_s() if self._runtime else float("inf")

    # Logs

    def read(self, workspace_id: str, *, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        return chunks(self._home.workspace(workspace_id) / "log", offset=offset, follow=follow)

    # Exec

    async def exec(
        self, workspace_id: str, command: Sequence[str], *, environment: Mapping[str, str], tty: bool
    ) -> ExecSession:
        return await (await self._here()).exec(workspace_id, command, environment=environment, tty=tty)

    async def _here(self) -> Engine:
        """The runtime. Raises `Unavailable` as long as there is no engine."""
        async with self._entering:
            if self._runtime is None:
                if missing := self.missing():
                    raise Unavailable(missing)
                self._runtime = await self._entered.enter_async_context(await self._make())
                log.info("the docker runtime begins", socket=str(self._socket))
            return self._runtime

    def _was_begun(self, workspace_id: str) -> bool:
        return deaths.are_kept(self._home.workspace(workspace_id))
