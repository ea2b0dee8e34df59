"""The docker runtime on a real engine, for the contract suite."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mooring.model.template import Editor, Template
from mooring.model.workspace import Workspace
from mooring.settings import Home, Listen
from mooring.workspaces.docker import DockerRuntime, Settings
from mooring.workspaces.ports import Engine, Observation
from support import docker
from support.docker import LIGHT_IMAGE, Dockerd
from support.runtimes import Behaviour, get, processes_of


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
        return await get(observation, path)

    async def crash(self, engine: Engine, workspace: Workspace) -> None:  # noqa: ARG002 - the harness has it
        os.kill(editor_of(workspace), signal.SIGKILL)

    def alive(self, workspace: Workspace) -> int:
        return processes_of(workspace)


def editor_of(workspace: Workspace) -> int:
    """The process of its light editor, as this machine sees it."""
    mark = f"MOORING_WORKSPACE={workspace.id}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                ours = mark in (entry / "environ").read_bytes().split(b"\0")
                if ours and (entry / "cmdline").read_bytes().startswith(b"python3\0/light_editor.py"):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("no editor runs")


@asynccontextmanager
async def harness(folder: Path) -> AsyncIterator[DockerHarness]:
    """The session's engine, emptied afterwards."""
    dockerd = await asyncio.to_thread(docker.shared)
    try:
        yield DockerHarness(dockerd, folder)
    finally:
        await asyncio.to_thread(dockerd.clear)
