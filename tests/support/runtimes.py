"""What the contract suite of runtimes needs of each of them.

A module `support/runtime_<name>.py` registers itself by having `harness(folder)`, an async context manager that gives
a `Harness` and takes everything down afterwards, workspaces included.
"""

import asyncio
import importlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, cast

from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.workspaces.ports import Engine, Observation

Behaviour = Literal["healthy", "crashing", "hanging", "missing"]
WITHIN_S = 60.0
SHARE = """
import time
began, used = time.monotonic(), time.process_time()
while time.process_time() - used < 0.4:
    pass
print((time.process_time() - used) / (time.monotonic() - began))
"""
"""Prints which share of one processor a busy program gets: 1 on a machine that does nothing else."""


class Harness(Protocol):
    """A runtime on this machine. `real` is false where no programs run (memory)."""

    real: bool

    def engine(self) -> AbstractAsyncContextManager[Engine]:
        """An instance over the same world. Leaving the block is what a kill of the server is: all of it runs on."""

    def template(self, behaviour: Behaviour) -> Template:
        """A template whose editor is `light_editor.py` with that behaviour; missing: a program that is not there."""

    async def ask(self, observation: Observation, path: str) -> str:
        """What the editor answers, empty when it does not. `get` below does it for real ones."""

    async def crash(self, engine: Engine, workspace: Workspace) -> None:
        """Kill its editor with a signal that it cannot see."""

    def alive(self, workspace: Workspace) -> int:
        """Processes of the workspace that exist, judged without the runtime. `processes_of` does it for real ones."""


Open = Callable[[Path], AbstractAsyncContextManager[Harness]]


def names() -> list[str]:
    """The runtimes that registered themselves."""
    return sorted(path.stem.removeprefix("runtime_") for path in Path(__file__).parent.glob("runtime_*.py"))


def open_harness(name: str) -> Open:
    """The harness of that runtime."""
    return cast("Open", importlib.import_module(f"support.runtime_{name}").harness)


def workspace(number: int = 1, *, generation: int = 1, **spec: object) -> Workspace:
    """The workspace `w<number>` of ada, wanted."""
    return Workspace(
        id=f"workspace{number}",
        owner="ada",
        name=f"w{number}",
        spec=Spec.model_validate({"template": "light", **spec}),
        desired=Desired.running,
        phase=Phase.pending,
        generation=generation,
    )


def stopped(workspace: Workspace) -> Workspace:
    """The same, to be stopped."""
    return replace(workspace, desired=Desired.stopped)


async def get(observation: Observation, path: str) -> str:
    """The body that a real editor answers with 200, empty when it does not."""
    backend = observation.editor
    if backend is None:
        return ""
    try:
        async with asyncio.timeout(5):
            if backend.unix:
                reader, writer = await asyncio.open_unix_connection(backend.unix)
            else:
                host, _, port = (backend.address or "").rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: light\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return ""
    return body.decode() if b" 200 " in head.split(b"\r\n")[0] else ""


async def answered(observation: Observation, path: str = "/pid") -> str:
    """What a real editor says, as soon as it does."""
    async with asyncio.timeout(WITHIN_S):
        while not (body := await get(observation, path)):
            await asyncio.sleep(0.05)
    return body


async def until(engine: Engine, wanted: Workspace, is_it: Callable[[Observation], bool]) -> Observation:
    """The first observation of `wanted` in a new watch that is as asked for."""
    async with asyncio.timeout(WITHIN_S), aclosing(engine.watch()) as watch:
        async for seen in watch:
            if seen.id == wanted.id and is_it(seen):
                return seen
    raise AssertionError("the watch ended")


def processes_of(workspace: Workspace) -> int:
    """Processes on this machine that were started with the workspace's id in their environment."""
    mark = f"MOORING_WORKSPACE={workspace.id}".encode()
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found += mark in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
    return found
