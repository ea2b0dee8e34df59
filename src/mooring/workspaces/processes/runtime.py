"""The process runtime: one person's workspaces as processes of one system user, each led by a keeper.

The server starts keepers, listens to them and asks; it never holds a workspace by being its parent. A server that
comes back connects to the keepers that still run and kills none of them. A keeper that was killed is replaced, and
the editor that it left is taken over as it is, when boot id, pid, start time, marker and cgroup all say it is the one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

import structlog

from mooring.control.backoff import Backoff
from mooring.control.clock import Clock, SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, DeadlineExceeded, Misconfigured, MooringError, Unavailable
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.settings import Home, Listen
from mooring.workspaces.feed import Feed
from mooring.workspaces.ports import ExecSession, Observation, Surroundings, Usage
from mooring.workspaces.processes.cgroups import Cgroups, are_held, remove
from mooring.workspaces.processes.inspection import Inspection
from mooring.workspaces.processes.keeper.lifecycle import FINAL
from mooring.workspaces.processes.keeper.order import Order, marker
from mooring.workspaces.processes.keepers import (
    Link,
    State,
    is_kept,
    kill_keeper,
    left_editor,
    reap,
    saved_state,
    start_keeper,
)
from mooring.workspaces.processes.orders import Orders, observed
from mooring.workspaces.processes.places import Folders
from mooring.workspaces.processes.procfs import boot_id
from mooring.workspaces.processes.sessions import Session
from mooring.workspaces.tail import chunks

T = TypeVar("T")
log = structlog.get_logger(__name__)

_END_WITHIN_S = 22.0
_SURVEY_S = 5.0
_RUNNING_ANSWERS_S = 3.0
_RECOVER = Backoff(first=0.2, most=5.0)
_FREE_TRIES = 9


class ProcessRuntime:
    """Runtime, Inspector, Logs and Exec on this machine. Enter it with `async with`; leaving it stops no workspace.

    `run_as` (uid, gid) is only for a process that is root, which then becomes that user for every workspace.

    Raises:
        Misconfigured: when workspaces would run as root.
    """

    def __init__(  # noqa: PLR0913 - each is a part of the world that a test replaces
        self,
        home: Home,
        listen: Listen,
        *,
        editor: Path,
        cgroups: Cgroups | None = None,
        run_as: tuple[int, int] | None = None,
        surroundings: Surroundings | None = None,
        clock: Clock | None = None,
    ) -> None:
        if os.geteuid() == 0 and (run_as is None or run_as[0] == 0):
            raise Misconfigured("the process runtime never runs workspaces as root: start Mooring as another user")
        if os.geteuid() != 0 and run_as not in (None, (os.geteuid(), os.getegid())):
            raise Misconfigured("only root can run workspaces as another user")
        owner = run_as if os.geteuid() == 0 else None
        self._folders = Folders(home, owner)
        self._cgroups = cgroups or Cgroups(None)
        self._orders = Orders(self._folders, listen, editor, self._cgroups)
        self._surroundings = surroundings
        self._clock = clock or SystemClock()
        self._tasks = Tasks("process-runtime")
        self._links: dict[str, Link] = {}
        self._wanted: dict[str, tuple[Workspace, Template]] = {}
        # Weak: a lock lives as long as somebody holds or awaits it, or each workspace that ever was would leave one.
        self._serial: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._children: set[int] = set()
        self._inspection = Inspection()
        self._feed = Feed()
        self._seen_at = self._clock.monotonic()

    async def __aenter__(self) -> Self:
        """Connect to every keeper that runs."""
        await self._survey()
        self._tasks.forever("survey", self._survey_for_ever())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._tasks.stop()
        reap(self._children)

    # Runtime

    def missing(self) -> str:
        return ""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        async with self._lock(workspace.id):
            if workspace.desired is Desired.running:
                self._wanted[workspace.id] = (workspace, template)
                return await self._translated(self._run(workspace, template))
            self._wanted.pop(workspace.id, None)
            await self._translated(self._end(workspace.id))
            return self._publish(Observation(workspace.id, workspace.generation, Phase.stopped))

    async def delete(self, workspace_id: str) -> None:
        async with self._lock(workspace_id):
            self._wanted.pop(workspace_id, None)
            await self._translated(self._end(workspace_id))
            await self._translated(asyncio.to_thread(self._folders.remove, workspace_id))
            self._feed.forget(workspace_id)

    async def watch(self) -> AsyncIterator[Observation]:
        async for observation in self._feed.follow():
            yield observation

    # Inspector

    async def usage(self, workspace_id: str) -> Usage | None:
        link = self._links.get(workspace_id)
        if link is None or link.state.get("phase") != "starting":
            return None
        return await asyncio.to_thread(self._inspection.usage, link.state)

    async def owns_port(self, workspace_id: str, port: int) -> str | None:
        link = self._links.get(workspace_id)
        if link is None or link.state.get("phase") != "starting":
            return None
        return await asyncio.to_thread(self._inspection.owned_address, link.state, port)

    def watch_age_s(self) -> float:
        return self._clock.monotonic() - self._seen_at

    # Logs

    def read(self, workspace_id: str, *, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        return chunks(self._folders.log_of(workspace_id), offset=offset, follow=follow)

    # Exec

    async def exec(
        self,
        workspace_id: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        tty: bool,
    ) -> ExecSession:
        link = self._links.get(workspace_id)
        if link is None or link.state.get("phase") != "starting":
            raise Conflict(f"workspace {workspace_id} does not run")
        return await Session.start(link, command, environment, tty=tty)

    # Start

    async def _run(self, workspace: Workspace, template: Template) -> Observation:
        await asyncio.to_thread(self._folders.claim, workspace.owner)
        link, saved = await self._known(workspace.id)
        is_this = saved is not None and saved["generation"] == workspace.generation
        if link is not None and is_this and link.state["phase"] == "starting":
            return self._publish(observed(link.state))
        if link is None and is_this and saved is not None and _is_now(saved) and saved["phase"] == "failed":
            return self._publish(observed(saved))
        resumed = link is None and is_this
        if not resumed:
            await self._end(workspace.id)
        left = saved if resumed and await asyncio.to_thread(self._left_editor, saved) else None
        offered = await self._surroundings.environment(workspace, template) if self._surroundings else {}
        order = await asyncio.to_thread(self._orders.keep, workspace, template, offered, left, orphans=resumed)
        kept = await self._keep(order, "keep")
        return self._publish(observed(kept.state))

    async def _known(self, workspace_id: str) -> tuple[Link | None, State | None]:
        """The keeper that lives, and the last state; one that is giving up is waited for, since it will say why."""
        link = await self._link(workspace_id)
        if link is not None and link.state["phase"] == "stopping":
            await asyncio.wait_for(link.ended.wait(), _END_WITHIN_S)
            return None, link.state
        return link, link.state if link else await self._saved(workspace_id)

    def _left_editor(self, saved: State | None) -> bool:
        return saved is not None and left_editor(saved, marker(saved["id"], self._folders.instance))

    async def _keep(self, order: Order, kind: str) -> Link:
        place = self._folders.place(order.id)
        pid = await asyncio.to_thread(start_keeper, place, order.id, self._folders.owner)
        self._children.add(pid)
        link = await self._connect(order.id)
        await link.send({"op": kind, "order": order.document()})
        await link.heard()
        return link

    # Stop

    async def _end(self, workspace_id: str) -> None:
        """End all of its processes, with its keeper, without it, or after one that does not answer."""
        known = self._links.get(workspace_id)
        try:
            link = await self._link(workspace_id)
            if link is not None:
                known = link
                await link.end(_END_WITHIN_S)
        except (Unavailable, TimeoutError) as error:
            log.warning("a keeper does not answer and is killed", workspace=workspace_id, error=str(error))
            if state := (known.state if known else {}) or await self._saved(workspace_id):
                await asyncio.to_thread(kill_keeper, state)
        if not await self._until_free(workspace_id):
            raise Unavailable(f"the keeper of workspace {workspace_id} does not end")
        # A full disk keeps the last word out of the state file.
        heard = known.state if known else {}
        await self._sweep(workspace_id, heard or await self._saved(workspace_id))

    async def _sweep(self, workspace_id: str, saved: State | None) -> None:
        # Also those of which no state tells: a keeper that ended before it wrote one, a disk that took none.
        made = tuple({*(saved["folders"] if saved else ()), *self._cgroups.folders(workspace_id)})
        if _is_unfinished(saved) or await asyncio.to_thread(are_held, made):
            await asyncio.to_thread(self._folders.make, workspace_id)
            link = await self._keep(self._orders.sweep(workspace_id, saved, made), "sweep")
            await asyncio.wait_for(link.ended.wait(), _END_WITHIN_S)
            _ = await self._until_free(workspace_id)
            if not link.is_final:
                raise Unavailable(f"workspace {workspace_id}: what should end its processes was killed")
            if link.state["left"]:
                raise Unavailable(f"workspace {workspace_id}: {link.state['reason']}")
        await asyncio.to_thread(remove, made)

    async def _until_free(self, workspace_id: str) -> bool:
        """Whether the lock is free: the kernel takes a moment after a kill."""
        for attempt in range(_FREE_TRIES):
            if not await asyncio.to_thread(is_kept, self._folders.place(workspace_id)):
                return True
            await self._clock.sleep(Backoff(first=0.01, most=1.0).delay(attempt))
        return False

    # Links to keepers

    async def _link(self, workspace_id: str) -> Link | None:
        """The keeper's link, None when there is no keeper.

        Raises:
            Unavailable: when there is one that does not answer.
        """
        link = self._links.get(workspace_id)
        if link is not None and link.is_final:
            await link.over(_END_WITHIN_S)
            link = None
        if link is not None and not link.ended.is_set():
            await link.heard(_RUNNING_ANSWERS_S)
            return link
        place = self._folders.place(workspace_id)
        if not await asyncio.to_thread(is_kept, place):
            return None
        try:
            link = await self._connect(workspace_id)
            await link.heard(_RUNNING_ANSWERS_S)
        except Unavailable:
            if (silent := self._links.pop(workspace_id, None)) is not None:
                silent.close()
            if await self._until_free(workspace_id):
                return None  # it was just dying
            raise
        return None if link.is_final else link

    async def _connect(self, workspace_id: str) -> Link:
        try:
            link = await Link.connect(self._folders.place(workspace_id), workspace_id)
        except OSError as error:
            raise Unavailable(f"the keeper of workspace {workspace_id} does not answer") from error
        self._links[workspace_id] = link
        link.follow(self._tasks, self._changed, self._lost)
        return link

    def _changed(self, link: Link) -> None:
        self._publish(observed(link.state))

    def _lost(self, link: Link) -> None:
        if self._links.get(link.id) is link:
            del self._links[link.id]
        if link.state and not link.is_final:
            reason = "its keeper is gone; a new one takes over"
            log.warning("a keeper is gone", workspace=link.id)
            self._publish(replace(observed(link.state), reason=reason))
            _ = self._tasks.spawn(f"recover/{link.id}", self._recover(link.id))

    async def _recover(self, workspace_id: str) -> None:
        attempt = 0
        # Without a wanted start it is being stopped, or the reconciler has not asked for it yet.
        while (wanted := self._wanted.get(workspace_id)) is not None:
            try:
                await self.apply(*wanted)
            except MooringError as error:
                log.warning("no new keeper yet", workspace=workspace_id, error=error.detail)
                await self._clock.sleep(_RECOVER.delay(attempt))
                attempt += 1
            else:
                return

    # The whole of it

    async def _survey_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_SURVEY_S)
            try:
                await self._survey()
            except (OSError, MooringError) as error:
                log.warning("the workspaces cannot be listed", error=str(error))

    async def _survey(self) -> None:
        """Connect to keepers that are not known yet; costs one listing of a folder when there is none."""
        reap(self._children)
        known = await asyncio.to_thread(self._folders.known)
        for workspace_id in known:
            if workspace_id not in self._links and not self._is_over(workspace_id):
                async with self._lock(workspace_id):
                    await self._discover(workspace_id)
        self._seen_at = self._clock.monotonic()

    def _is_over(self, workspace_id: str) -> bool:
        latest = self._feed.latest(workspace_id)
        return latest is not None and latest.phase in (Phase.stopped, Phase.failed)

    async def _discover(self, workspace_id: str) -> None:
        try:
            if await self._link(workspace_id) is not None:
                return
        except Unavailable as error:
            log.warning("a keeper does not answer", workspace=workspace_id, error=error.detail)
            return
        saved = await self._saved(workspace_id)
        if saved is None:
            return
        if saved["phase"] in FINAL or not _is_now(saved):
            await asyncio.to_thread(remove, tuple(saved["folders"]))
            phase = Phase.failed if saved["phase"] == "failed" else Phase.stopped
            self._publish(replace(observed(saved), phase=phase, editor=None, ports=None))
        elif await asyncio.to_thread(self._left_editor, saved):
            self._publish(replace(observed(saved), reason="its keeper was killed while Mooring was away"))
        else:
            reason = "it was killed while Mooring was away"
            self._publish(replace(observed(saved), phase=Phase.stopped, editor=None, ports=None, reason=reason))

    async def _saved(self, workspace_id: str) -> State | None:
        return await asyncio.to_thread(saved_state, self._folders.place(workspace_id))

    def _publish(self, observation: Observation) -> Observation:
        self._feed.publish(observation)
        return observation

    def _lock(self, workspace_id: str) -> asyncio.Lock:
        return self._serial.setdefault(workspace_id, asyncio.Lock())

    async def _translated(self, work: Coroutine[Any, Any, T]) -> T:
        """Errors of files and of waits as the port names them."""
        try:
            return await work
        except TimeoutError as error:
            raise DeadlineExceeded("the workspace's processes do not end in time") from error
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise Unavailable(f"{error.strerror or error}{where}") from error


def _is_now(saved: State) -> bool:
    """Whether what was saved is of this boot: pids of another mean nothing."""
    return bool(saved["boot"] == boot_id())


def _is_unfinished(saved: State | None) -> bool:
    """Whether what was saved says that processes may be left."""
    return saved is not None and (saved["phase"] not in FINAL or bool(saved["left"])) and _is_now(saved)
