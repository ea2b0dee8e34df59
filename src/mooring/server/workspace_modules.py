"""What workspaces have of the module proxy: a token each, and the environment in which the go command asks us.

A token is made from a key, the workspace and the start: nobody has to remember it, so none can be lost or left over.
The file of tokens says which ones count, and is made anew from the workspaces that exist whenever they change: those
that are to run, each with the private modules of its owner. A restart brings another token, a stop and a deletion
take it back, and so does a new file `goproxy.toml`, within seconds.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from mooring.control.clock import Clock
from mooring.errors import MooringError
from mooring.goproxy import team
from mooring.goproxy.access import SEGMENT, WORKSPACE, Subject, replace_workspaces
from mooring.goproxy.ledger import public_key
from mooring.goproxy.stamps import Stamp, stamp
from mooring.model.template import Template
from mooring.model.workspace import Desired, Workspace
from mooring.server.files import modules_key
from mooring.settings import Home
from mooring.workspaces.pages import every
from mooring.workspaces.ports import WorkspaceStore

log = structlog.get_logger(__name__)

_LOOK_S = 2.0
_AT_LEAST_S = 60.0
"""Another server on the same database may have made workspaces of which this one hears nothing."""


class WorkspaceModules:
    """Keeps the tokens; `run` it for ever. `wake` says that workspaces changed."""

    def __init__(self, home: Home, store: WorkspaceStore, clock: Clock) -> None:
        self._home = home
        self._store = store
        self._clock = clock
        self._wanted = team.Team()
        self._stamp: Stamp | None = None
        self._is_read = False
        self._written: _Written | None = None
        self._one = asyncio.Lock()
        self._begun = self._held = 0
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at the workspaces soon."""
        self._woken.set()

    def seen_from(self, address: str) -> "Environment":
        """A `Surroundings` for workspaces that reach the proxy at `address`."""
        return Environment(self, address)

    @property
    def is_wanted(self) -> bool:
        """Whether there is to be a module proxy at all."""
        return self._wanted.enabled

    def allowed(self, user: str) -> tuple[str, ...]:
        """The patterns of the private modules that a user may have."""
        return self._wanted.allowed(user)

    async def run(self) -> None:
        """Follow workspaces and settings."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._woken.wait()
            if self._woken.is_set() or not self._is_current():
                self._woken.clear()
                await self.admit()

    def _is_current(self) -> bool:
        # The list of all workspaces is not read for nothing every few seconds.
        if self._written is None or self._clock.monotonic() - self._written.at > _AT_LEAST_S:
            return False
        home, written = self._home, self._written
        return stamp(home.modules_settings) == self._stamp and stamp(home.modules_tokens) == written.stamp

    async def admit(self) -> None:
        """Return once the file of tokens is as the workspaces were after this call began, or could not be made so."""
        seen = self._begun
        async with self._one:
            if self._held > seen:
                return
            self._begun += 1
            try:
                await self._project()
            except (MooringError, OSError) as error:
                log.warning("the workspaces' tokens are not written", error=str(error))
                # Taken for current, the token of what was stopped meanwhile would count for a minute more.
                self._written = None
            self._held = self._begun

    async def variables(self, workspace: Workspace, address: str) -> dict[str, str]:
        """What the go command of a workspace is to go by. Raises as its parts; admits the workspace."""
        await self.admit()
        if not self.is_wanted:
            return {}
        token = await asyncio.to_thread(self._token, workspace)
        proxy = f"{address}{SEGMENT.decode()}{token}"
        database = await asyncio.to_thread(public_key, self._home.modules / "notary", self._wanted.notary)
        return {"GOPROXY": proxy, "GOSUMDB": database}

    async def _project(self) -> None:
        await asyncio.to_thread(self._read)
        subjects: dict[str, Subject] = {}
        if self._wanted.enabled:
            key = await asyncio.to_thread(modules_key, self._home)
            async for workspace in every(self._store):
                if workspace.desired is Desired.running:
                    name = f"{WORKSPACE}{workspace.owner}/{workspace.name}"
                    subjects[_token(key, workspace)] = Subject(name, self._wanted.allowed(workspace.owner))
        file, before = self._home.modules_tokens, self._written
        if before is None or (before.subjects, before.stamp) != (subjects, stamp(file)):
            self._written = None
            await asyncio.to_thread(replace_workspaces, file, subjects)
        self._written = _Written(subjects, stamp(file), self._clock.monotonic())

    def _read(self) -> None:
        file = self._home.modules_settings
        seen = stamp(file)
        if seen == self._stamp and self._is_read:
            return
        try:
            self._wanted = team.read(file)
        except MooringError as error:
            # The role tells it; what was allowed before stays so, and at a start nothing private is.
            log.warning("settings not taken", error=error.detail)
        self._stamp, self._is_read = seen, True

    def _token(self, workspace: Workspace) -> str:
        return _token(modules_key(self._home), workspace)


@dataclass(frozen=True, slots=True)
class _Written:
    """What the file of tokens was made to say, when, and how to see that it was changed since."""

    subjects: Mapping[str, Subject]
    stamp: Stamp | None
    at: float


@dataclass(frozen=True, slots=True)
class Environment:
    """A `Surroundings`: GOPROXY and GOSUMDB, unless template or owner say where modules come from."""

    modules: WorkspaceModules
    address: str

    async def environment(self, workspace: Workspace, template: Template) -> Mapping[str, str]:
        if "GOPROXY" in template.environment or "GOPROXY" in workspace.spec.environment:
            # Our checksum database is reached through our proxy only.
            return {}
        try:
            return await self.modules.variables(workspace, self.address)
        except (MooringError, OSError, ValueError) as error:
            log.warning("a workspace starts without the module proxy", workspace=workspace.id, error=str(error))
            return {}


def _token(key: bytes, workspace: Workspace) -> str:
    start = f"{workspace.id} {workspace.generation}".encode()
    return base64.urlsafe_b64encode(hmac.digest(key, start, hashlib.sha256)).decode().rstrip("=")
