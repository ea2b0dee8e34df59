"""The runtime in memory, for the contract suite."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mooring.errors import Misconfigured
from mooring.model.template import Editor, Template
from mooring.model.workspace import Phase, Workspace
from mooring.workspaces.memory_runtime import CrashingRuntime, MemoryRuntime, World
from mooring.workspaces.ports import Engine, Observation
from support.runtimes import Behaviour


class _ByTemplate(MemoryRuntime):
    """Does what the template's first word says."""

    async def apply(self, workspace: Workspace, template: Template) -> Observation:
        behaviour = template.editor.command[0]
        if behaviour == "missing":
            raise Misconfigured("there is no program missing", field="template")
        if behaviour == "crashing":
            return await CrashingRuntime(self.world).apply(workspace, template)
        return await super().apply(workspace, template)


class MemoryHarness:
    real = False

    def __init__(self) -> None:
        self._world = World()

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        yield _ByTemplate(self._world)

    def template(self, behaviour: Behaviour) -> Template:
        return Template(name="light", editor=Editor(command=(behaviour,)))

    async def ask(self, observation: Observation, path: str) -> str:
        now = self._world.seen.get(observation.id)
        if now is None or now.phase is not Phase.starting:
            return ""
        if path == "/pid":
            return f"{now.generation}.{now.restarts}"
        return '{"status":"alive"}'

    async def crash(self, engine: Engine, workspace: Workspace) -> None:
        assert isinstance(engine, MemoryRuntime)
        engine.crash(workspace.id, "killed")

    def alive(self, workspace: Workspace) -> int:
        now = self._world.seen.get(workspace.id)
        return int(now is not None and now.phase is Phase.starting)


@asynccontextmanager
async def harness(_folder: Path) -> AsyncIterator[MemoryHarness]:
    """A world of its own."""
    yield MemoryHarness()
