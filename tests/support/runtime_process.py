"""The process runtime, for the contract suite and its own tests: a world below a short folder of the user's."""

import json
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.settings import Home, Listen
from mooring.workspaces.ports import Engine, Observation
from mooring.workspaces.processes import cgroups, procfs
from mooring.workspaces.processes.cgroups import Cgroups
from mooring.workspaces.processes.keeper.order import marker
from mooring.workspaces.processes.places import Folders
from mooring.workspaces.processes.runtime import ProcessRuntime
from support import runtimes
from support.runtimes import Behaviour

USER = "mooring"


def account() -> tuple[int, int] | None:
    """Whom workspaces run as: root's tests use the user that the set-up made."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam(USER)
    return user.pw_uid, user.pw_gid


class ProcessHarness:
    real = True

    def __init__(self, folder: Path, root: cgroups.CgroupRoot | None) -> None:
        self.home = Home(folder / "home")
        self.root = root
        self.editor = folder / "light_editor.py"
        self.started: set[str] = set()

    def runtime(self) -> ProcessRuntime:
        """An instance over this world."""
        return ProcessRuntime(
            self.home,
            Listen(),
            editor=self.editor,
            cgroups=Cgroups(self.root, account()),
            run_as=account(),
        )

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[ProcessRuntime]:
        async with self.runtime() as runtime:
            yield runtime

    def template(self, behaviour: Behaviour) -> Template:
        program = "/nonexistent/program" if behaviour == "missing" else "python3"
        command = (program, "-I", "-S", "{editor}", "{socket}", behaviour)
        return Template(name="light", editor=Editor(command=command))

    async def ask(self, observation: Observation, path: str) -> str:
        return await runtimes.get(observation, path)

    async def crash(self, _engine: Engine, workspace: Workspace) -> None:
        os.kill(self.editor_pid(workspace), signal.SIGKILL)

    def alive(self, workspace: Workspace) -> int:
        """Not `processes_of`: tests at the same time on this machine have workspaces of the same ids."""
        return len(self.members(workspace))

    def members(self, workspace: Workspace) -> list[int]:
        """Processes that were started with the marks of this world's workspace."""
        marks = marker(workspace.id, Folders(self.home, None).instance)
        return [pid for pid in procfs.processes() if procfs.has_environment(pid, marks)]

    def place(self, workspace: Workspace) -> Path:
        """Where its state file is."""
        return self.home.editor_socket(workspace.id).parent

    def state(self, workspace: Workspace) -> dict[str, Any]:
        """What its keeper last wrote."""
        return dict(json.loads((self.place(workspace) / "state.json").read_text()))

    def editor_pid(self, workspace: Workspace) -> int:
        pid, _ = self.state(workspace)["editor"]
        return int(pid)

    async def end(self) -> None:
        """Stop everything that was started here."""
        async with self.runtime() as runtime:
            for place in (self.home.run / "w").glob("*"):
                await runtime.delete(place.name)


@asynccontextmanager
async def harness(_folder: Path) -> AsyncIterator[ProcessHarness]:
    """A world with cgroups where they can be had. Not below pytest's folder: its name is too long for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-"))
    user = account()
    for made in (folder, folder / "home"):
        made.mkdir(exist_ok=True)
        if user is not None:
            os.chown(made, *user)
    shutil.copy(Path(runtimes.__file__).with_name("light_editor.py"), folder)
    uid, gid = user or (os.geteuid(), os.getegid())
    try:
        with cgroups.prepare(uid, gid, name=folder.name) as root:
            world = ProcessHarness(folder, root)
            yield world
            await world.end()
    finally:
        shutil.rmtree(folder)


__all__ = ["USER", "Desired", "Phase", "ProcessHarness", "account", "harness"]
