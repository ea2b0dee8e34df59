"""The docker runtime on a real engine, for the contract suite."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mooring.model.template import Editor, Template
from mooring.model.workspace import Workspace
from mooring.settings import Home, Listen
from mooring.workspaces.docker.runtime import DockerRuntime, Settings
from mooring.workspaces.ports import Engine, Observation
from support import docker
from support.docker import LIGHT_IMAGE, Dockerd
from support.runtimes import Behaviour, get


class DockerHarness:
    real = True

    def __init__(self, dockerd: Dockerd, folder: Path) -> None:
        self.dockerd = dockerd
        self.home = Home(folder / "home")

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        settings = Settings(self.home, Listen(), host=self.dockerd.host, image=LIGHT_IMAGE)
        async with DockerRuntime(settings) as runtime:
            yield runtime

    def template(self, behaviour: Behaviour) -> Template:
        image = "localhost/nothing:latest" if behaviour == "missing" else LIGHT_IMAGE
        command = ("python3", "/light_editor.py", "{port}", behaviour)
        return Template(name="light", runtime="docker", image=image, editor=Editor(command=command, listen="port"))

    async def ask(self, observation: Observation, path: str) -> str:
        body = await get(observation, path)
        # In a container every editor has the same number.
        return str(self.editor_of(observation.id)) if body and path == "/pid" else body

    async def crash(self, engine: Engine, workspace: Workspace) -> None:  # noqa: ARG002 - the harness has it
        os.kill(self.editor_of(workspace.id), signal.SIGKILL)

    def alive(self, workspace: Workspace) -> int:
        return len(self._processes(workspace.id))

    def editor_of(self, workspace_id: str) -> int:
        """The process of its light editor, as this machine sees it."""
        for pid in self._processes(workspace_id):
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"python3\0/light_editor.py"):
                    return pid
        raise AssertionError("no editor runs")

    def _processes(self, workspace_id: str) -> list[int]:
        # Only those below this engine: other sessions on this machine have workspaces of the same name.
        mark = f"MOORING_WORKSPACE={workspace_id}".encode()
        below, found = {self.dockerd.reaper}, []
        # Not by the lists of children: the kernel leaves some out while a sibling ends (proc(5)).
        parents = _parents()
        while more := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= more
        for pid in below:
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found


def _parents() -> dict[int, int]:
    """Of every process of this machine."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[DockerHarness]:
    """The session's engine, emptied afterwards."""
    dockerd = await asyncio.to_thread(docker.shared)
    try:
        yield DockerHarness(dockerd, folder)
    finally:
        await asyncio.to_thread(dockerd.clear)
