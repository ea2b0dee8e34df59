"""The docker runtime: a team's workspaces on one machine, each a container with a network and a volume of its own.

The engine's labels are the memory of what runs: a server that comes back finds its containers by them and kills none.
What happened is never taken from an event: an event only says which container to look at (control/reconcile.py).
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

import structlog

from mooring.control.backoff import Backoff
from mooring.control.clock import Clock, SystemClock
from mooring.control.reconcile import Reconciler
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, Misconfigured, MooringError, NotFound, Unavailable
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Workspace, quantity_bytes
from mooring.settings import Home, Listen
from mooring.workspaces.docker import container as shape
from mooring.workspaces.docker import crashes as deaths
from mooring.workspaces.docker import modules
from mooring.workspaces.docker.container import DATA, PLACES, Enforcement, Names
from mooring.workspaces.docker.engine import DockerEngine, asking
from mooring.workspaces.docker.exec import DockerSession, run_step
from mooring.workspaces.docker.inspection import Inspection
from mooring.workspaces.docker.network import IMAGE, POOL, Guard, Networks
from mooring.workspaces.docker.output import Output
from mooring.workspaces.docker.volumes import Volumes
from mooring.workspaces.docker.watch import Watch
from mooring.workspaces.docker.ways import Ways, asks_modules
from mooring.workspaces.feed import Feed
from mooring.workspaces.launch import Launch, launch
from mooring.workspaces.output import end_of, last_lines, written_since
from mooring.workspaces.ports import ExecSession, Observation, Surroundings, Usage
from mooring.workspaces.steps import failure
from mooring.workspaces.tail import chunks

log = structlog.get_logger(__name__)

GRACE_S = 8
_BACKOFF = Backoff(first=0.1, most=2.0)
_BUSY_S = 0.2
_LOGGED_WITHIN_S = 1.0
_OUT_OF_MEMORY = "the memory limit was reached: a process was killed"


@dataclass(frozen=True, slots=True)
class Settings:
    """`host` is the engine's address, None its usual socket. `image` holds the guard's nft. `pool` has the networks."""

    home: Home
    listen: Listen
    host: str | None = None
    image: str = IMAGE
    pool: str = POOL


class DockerRuntime:
    """Runtime, Inspector, Logs and Exec on one engine. Enter it with `async with`; leaving it stops no workspace."""

    def __init__(
        self, settings: Settings, surroundings: Surroundings | None = None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._home = settings.home
        self._clock = clock or SystemClock()
        self._tasks = Tasks("docker-runtime")
        self.instance = settings.home.instance
        self._engine = DockerEngine(settings.host)
        self._guard = Guard(self._engine, settings.image)
        self._networks = Networks(self._engine, self.instance, settings.pool)
        self._volumes = Volumes(self._engine, self.instance)
        self._output = Output(self._engine, settings.home, self._tasks)
        self._inspection = Inspection(self._engine)
        self._ways = Ways(
            self._engine, self._guard, settings.home, self._tasks, opened=self._are_open, notice=self._notice
        )
        self._feed = Feed()
        self._crashes: dict[str, deaths.Crashes] = {}
        # Weak: a lock lives as long as somebody holds or awaits it, or each workspace that ever was would leave one.
        self._serial: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._known: set[str] = set()
        self._looks = Reconciler("docker-look", self._look, backoff=_BACKOFF)
        self._watch = Watch(self._engine, self.instance, self._clock, self._looks.add, self._oom, self._blinded)

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        self._looks.start(self._tasks)
        self._tasks.forever("events", self._watch.follow(lambda: tuple(self._crashes)))
        self._tasks.forever("pulse", self._watch.pulse(self._guard.ensure))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.stop()
        await self._engine.__aexit__(kind, error, trace)

    # Runtime

    def missing(self) -> str:
        return ""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        async with self._lock(workspace.id):
            if workspace.desired is Desired.running:
                return await self._run(workspace, template)
            await self._end(workspace.id)
            self._crashes.pop(workspace.id, None)
            return self._publish(Observation(workspace.id, workspace.generation, Phase.stopped))

    async def delete(self, workspace_id: str) -> None:
        name = Names(workspace_id).all
        async with self._lock(workspace_id):
            await self._engine.remove(name)
            await self._output.drain(workspace_id)
            await self._networks.remove(workspace_id)
            await self._volumes.remove(workspace_id)
            await asyncio.to_thread(shutil.rmtree, self._home.workspace(workspace_id), ignore_errors=True)
            self._crashes.pop(workspace_id, None)
            if (seen := self._feed.latest(workspace_id)) is not None:
                self._publish(Observation(workspace_id, seen.generation, Phase.stopped))
            self._feed.forget(workspace_id)
            self._ways.forget(workspace_id)
            self._known.discard(workspace_id)

    async def watch(self) -> AsyncIterator[Observation]:
        async for observation in self._feed.follow():
            yield observation

    # Inspector

    async def usage(self, workspace_id: str) -> Usage | None:
        return await self._inspection.usage(Names(workspace_id).all)

    async def owns_port(self, workspace_id: str, port: int) -> str | None:
        return await self._inspection.listener(Names(workspace_id).all, port)

    def watch_age_s(self) -> float:
        return self._watch.age_s()

    # Logs

    def read(self, workspace_id: str, *, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        return chunks(self._output.folder(workspace_id), offset=offset, follow=follow)

    # Exec

    async def exec(
        self, workspace_id: str, command: Sequence[str], *, environment: Mapping[str, str], tty: bool
    ) -> ExecSession:
        container = await self._engine.inspect(Names(workspace_id).all)
        if container is None or not shape.is_running(container):
            raise Conflict("the workspace does not run", field="phase")
        return await DockerSession.start(self._engine, container["Id"], command, environment, tty=tty)

    # Start and stop; the caller holds the lock.

    async def _run(self, workspace: Workspace, template: Template) -> Observation:
        container = await self._engine.inspect(Names(workspace.id).all)
        if container is not None:
            is_this = shape.generation_of(container) == workspace.generation
            if is_this and container["State"]["Status"] != "created":
                if await self._was_left_dead(container):
                    self._publish(shape.left_dead(container))
                self._known.add(workspace.id)
                # When it is due is for a look to wait for, not for whoever asked.
                self._looks.add(workspace.id)
                return (await self._settle(container))[0]
            # An earlier start's, or one that was killed between making and starting it.
            await self._end(workspace.id)
        try:
            return await self._start(workspace, template)
        except MooringError:
            await self._engine.remove(Names(workspace.id).all)
            raise

    async def _start(self, workspace: Workspace, template: Template) -> Observation:
        plan = launch(workspace, template, PLACES, self._settings.listen)
        offered = await self._surroundings.environment(workspace, template) if self._surroundings else {}
        plan = replace(plan, environment={**offered, **plan.environment})
        if template.image is None or plan.port is None:
            raise Misconfigured(f"template {template.name}: runtime docker needs image and editor.listen = port")
        guard = self._tasks.spawn(f"guard for {workspace.id}", self._guard.ensure())
        crashes = deaths.Crashes(workspace.generation)
        await self._begin(workspace.id, crashes)
        container = await self._create(workspace, template.image, plan)
        # Fail closed: a workspace never runs on a machine that is not kept from it.
        await guard
        async with asking(f"starting workspace {workspace.id}", 60.0):
            await self._engine.container(container).start()
        self._crashes[workspace.id] = crashes
        self._known.add(workspace.id)
        seen = await self._engine.inspect(container)
        if seen is None:
            raise Unavailable(f"the container of workspace {workspace.id} is gone")
        for step in plan.first_start:
            _ = self._tasks.spawn(f"{step.name} in {workspace.id}", self._step(seen, step.name, step.argv))
        return (await self._settle(seen))[0]

    async def _begin(self, workspace_id: str, crashes: deaths.Crashes) -> None:
        """Keep that a start begins; of a start anew, as after `mooring down`, what was kept before is not its own.

        Raises:
            Unavailable: it cannot be kept. A delete while the engine is away would leave what a start makes there.
        """
        try:
            await asyncio.to_thread(deaths.save, self._home.workspace(workspace_id), crashes)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise Unavailable(f"{error.strerror or error}{where}") from error

    async def _create(self, workspace: Workspace, image_name: str, plan: Launch) -> str:
        image = await self._engine.image(image_name)
        address = await self._networks.ensure(workspace.id)
        size = workspace.spec.limits.storage
        storage = await self._volumes.ensure(workspace.id, quantity_bytes(size) if size else None)
        enforcement = Enforcement.of(await self._engine.info(), storage=storage)
        tags = shape.labels(self.instance, workspace, plan, enforcement)
        binds = (modules.bind(self._home.containers_socket),) if asks_modules(plan.environment) else ()
        body = shape.document(image, plan, workspace.spec.limits, tags, address, binds)
        async with asking(f"making the container of workspace {workspace.id}"):
            made = await self._engine.docker.containers.create(body, name=Names(workspace.id).all)
        return made.id

    async def _step(self, container: Mapping[str, Any], name: str, argv: Sequence[str]) -> None:
        folder = str(self._output.folder(shape.workspace_of(container)))
        since = await asyncio.to_thread(end_of, folder)
        try:
            status = await run_step(self._engine, container["Id"], DATA, argv)
        except MooringError as error:
            log.info(
                "a step of the first start was cut off", workspace=shape.workspace_of(container), error=error.detail
            )
            return
        if status != 0:
            # Its last words come to us by way of the engine's log, which nobody waits for.
            await asyncio.sleep(_LOGGED_WITHIN_S)
            await self._notice(container, failure(name, status, await asyncio.to_thread(written_since, folder, since)))

    async def _end(self, workspace_id: str) -> None:
        name = Names(workspace_id).all
        if (container := await self._engine.inspect(name)) is None:
            return
        if (seen := self._feed.latest(workspace_id)) is not None:
            # From here on its address may belong to somebody else.
            self._publish(replace(seen, phase=Phase.stopping, editor=None, ports=None))
        async with asking(f"stopping workspace {workspace_id}", GRACE_S + 30.0):
            await self._engine.container(container["Id"]).stop(t=GRACE_S)
        await self._output.drain(workspace_id)
        await self._engine.remove(name)

    # What is so

    async def _look(self, workspace_id: str) -> float | None:
        lock = self._lock(workspace_id)
        if lock.locked():
            # Whoever holds it sees for itself; a worker that waits here holds up the others' workspaces.
            return _BUSY_S
        async with lock:
            container = await self._engine.inspect(Names(workspace_id).all)
            if container is None:
                if (seen := self._feed.latest(workspace_id)) is not None and seen.phase is not Phase.stopped:
                    self._publish(Observation(workspace_id, seen.generation, Phase.stopped, reason="it was removed"))
                return None
            if await self._was_left_dead(container):
                # Whether it should run is not known here; who asks for it is to see first that it did not.
                self._publish(shape.left_dead(container))
                return None
            return (await self._settle(container))[1]

    async def _was_left_dead(self, container: Mapping[str, Any]) -> bool:
        """Whether it died while nobody watched, and was not given up."""
        if shape.workspace_of(container) in self._known or shape.is_running(container):
            return False
        return container["State"]["Status"] != "created" and not (await self._crashes_of(container)).failed

    async def _settle(self, container: Mapping[str, Any]) -> tuple[Observation, float | None]:
        """Publish what is so with this container, start it again when that is due; with the seconds until then."""
        workspace_id = shape.workspace_of(container)
        crashes = await self._crashes_of(container)
        if container["State"]["Status"] == "created":
            return self._publish(Observation(workspace_id, crashes.generation, Phase.stopped)), None
        if shape.is_running(container):
            self._known.add(workspace_id)
            crashes.reason = ""
            self._output.follow(workspace_id, container["Id"])
            self._ways.open(container, crashes.ways)
            return self._publish(self._with(shape.observed(container), crashes)), None
        if crashes.count(shape.death_of(container), shape.why_dead(container), self._clock.now()):
            await self._output.drain(workspace_id)
            if crashes.failed:
                folder = str(self._output.folder(workspace_id))
                crashes.reason += "\n" + await asyncio.to_thread(last_lines, folder)
            await self._keep(workspace_id, crashes)
            if not crashes.failed:
                # By the time its output was read it may be due already; why it died must be told all the same.
                self._publish(self._with(shape.observed(container), crashes))
        wait_s = crashes.wait_s(self._clock.now())
        if not crashes.failed and wait_s <= 0:
            return await self._start_again(container, crashes)
        if crashes.failed:
            failed = Observation(workspace_id, crashes.generation, Phase.failed)
            return self._publish(self._with(failed, crashes)), None
        return self._publish(self._with(shape.observed(container), crashes)), wait_s

    async def _start_again(
        self, container: Mapping[str, Any], crashes: deaths.Crashes
    ) -> tuple[Observation, float | None]:
        workspace_id = shape.workspace_of(container)
        try:
            await self._guard.ensure()
            async with asking(f"starting workspace {workspace_id} again", 60.0):
                await self._engine.container(container["Id"]).start()
        except (Misconfigured, NotFound) as error:
            crashes.fail(error.detail)
            await self._keep(workspace_id, crashes)
            failed = Observation(workspace_id, crashes.generation, Phase.failed)
            return self._publish(self._with(failed, crashes)), None
        again = await self._engine.inspect(container["Id"])
        if again is None:
            raise Unavailable(f"the container of workspace {workspace_id} is gone")
        return await self._settle(again)

    async def _crashes_of(self, container: Mapping[str, Any]) -> deaths.Crashes:
        workspace_id, generation = shape.workspace_of(container), shape.generation_of(container)
        crashes = self._crashes.get(workspace_id)
        if crashes is None or crashes.generation != generation:
            crashes = await asyncio.to_thread(deaths.load, self._home.workspace(workspace_id), generation)
            self._crashes[workspace_id] = crashes
        return crashes

    def _with(self, observation: Observation, crashes: deaths.Crashes) -> Observation:
        return replace(observation, reason=crashes.reason, restarts=crashes.restarts, notices=tuple(crashes.notices))

    async def _keep(self, workspace_id: str, crashes: deaths.Crashes) -> None:
        try:
            await asyncio.to_thread(deaths.save, self._home.workspace(workspace_id), crashes)
        except OSError as error:
            log.warning("crashes and notices are not kept", workspace=workspace_id, error=str(error))

    def _oom(self, workspace_id: str) -> None:
        crashes = self._crashes.get(workspace_id)
        if crashes is not None and _OUT_OF_MEMORY not in crashes.notices:
            told = self._add_notice(workspace_id, crashes.generation, _OUT_OF_MEMORY)
            _ = self._tasks.spawn(f"memory notice of {workspace_id}", told)

    def _blinded(self, why: str) -> None:
        for workspace_id in tuple(self._crashes):
            seen = self._feed.latest(workspace_id)
            if seen is not None and seen.phase is Phase.starting:
                self._publish(replace(seen, blind=why))

    async def _notice(self, container: Mapping[str, Any], text: str) -> None:
        await self._add_notice(shape.workspace_of(container), shape.generation_of(container), text)

    async def _add_notice(self, workspace_id: str, generation: int, text: str) -> None:
        def add(crashes: deaths.Crashes) -> None:
            crashes.notices = tuple(dict.fromkeys((*crashes.notices, text)))

        await self._amend(workspace_id, generation, add)
        self._looks.add(workspace_id)

    async def _are_open(self, container: Mapping[str, Any], run: str) -> None:
        def say(crashes: deaths.Crashes) -> None:
            crashes.ways = run

        await self._amend(shape.workspace_of(container), shape.generation_of(container), say)

    async def _amend(self, workspace_id: str, generation: int, change: Callable[[deaths.Crashes], None]) -> None:
        # Without the lock a delete could be under way, and the file that is kept would bring its folder back.
        async with self._lock(workspace_id):
            crashes = self._crashes.get(workspace_id)
            if crashes is not None and crashes.generation == generation:
                change(crashes)
                await self._keep(workspace_id, crashes)

    def _publish(self, observation: Observation) -> Observation:
        self._feed.publish(observation)
        return observation

    def _lock(self, workspace_id: str) -> asyncio.Lock:
        return self._serial.setdefault(workspace_id, asyncio.Lock())
