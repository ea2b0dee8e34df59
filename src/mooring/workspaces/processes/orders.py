"""Between the runtime's port and a keeper: a workspace becomes an order, a keeper's state becomes an observation."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mooring.errors import Misconfigured
from mooring.model.routes import Backend
from mooring.model.template import Template
from mooring.model.workspace import Phase, Workspace
from mooring.settings import Listen
from mooring.workspaces.launch import Launch, Places, launch
from mooring.workspaces.ports import Observation
from mooring.workspaces.processes.cgroups import Cgroups, Placement
from mooring.workspaces.processes.keeper.order import Order
from mooring.workspaces.processes.keepers import STATE_FILE, State
from mooring.workspaces.processes.places import Folders

GRACE_S = 8.0


class Orders:
    """Writes orders. Blocking: it makes folders and cgroups."""

    def __init__(self, folders: Folders, listen: Listen, editor: Path, cgroups: Cgroups) -> None:
        self._folders = folders
        self._listen = listen
        self._editor = editor
        self._cgroups = cgroups

    def sweep(self, workspace_id: str, saved: State | None, folders: Sequence[str]) -> Order:
        """An order to end what a keeper left in the cgroups `folders`; `saved` is its last state, if it wrote one."""
        kept = {name: saved[name] for name in ("generation", "restarts", "crashes")} if saved else {}
        return Order({**self._blank(workspace_id), **kept, "folders": list(folders), "orphans": True})

    def keep(
        self,
        workspace: Workspace,
        template: Template,
        offered: Mapping[str, str],
        left: State | None,
        *,
        orphans: bool,
    ) -> Order:
        """What the keeper is told; makes folders and cgroups. `offered` are variables that the others go before."""
        self._folders.make(workspace.id)
        plan = self._launch(workspace, template)
        environment = {**self._folders.base_environment(workspace.id), **offered, **plan.environment}
        environment["MOORING_INSTANCE"] = self._folders.instance
        if shutil.which(plan.program, path=environment["PATH"]) is None:
            raise Misconfigured(f"template {template.name}: there is no program {plan.program}", field="editor.command")
        limits = workspace.spec.limits
        if left is None:
            placement = self._cgroups.place(workspace.id, limits)
        else:
            placement = Placement(*(tuple(left[name]) for name in ("folders", "limited", "unlimited")))
        return Order(
            {
                **self._blank(workspace.id),
                "generation": workspace.generation,
                "argv": list(plan.argv),
                "environment": environment,
                "cwd": plan.cwd,
                "socket": plan.socket,
                "port": plan.port,
                "steps": [[step.name, list(step.argv)] for step in plan.first_start],
                "folders": list(placement.folders),
                "limited": list(placement.limited),
                "unlimited": list(placement.unlimited),
                "memory": limits.memory or "",
                "adopt": left["editor"] if left else None,
                # An older build's keeper, which an upgrade finds killed, wrote none.
                "notices": left.get("notices", []) if left else [],
                "orphans": orphans,
                "restarts": left["restarts"] if left else 0,
                "crashes": left["crashes"] if left else [],
            }
        )

    def _launch(self, workspace: Workspace, template: Template) -> Launch:
        folders, name = self._folders, workspace.id
        places = Places(
            home=str(folders.home_of(name)),
            data=str(folders.data_of(name)),
            editor=str(self._editor),
            socket=str(folders.home.editor_socket(name)),
            # The set-up puts both into one folder: <cache>/editor/bin/code-server and <cache>/go.
            go=str(self._editor.parent.parent.parent / "go"),
        )
        return launch(workspace, template, places, self._listen)

    def _blank(self, workspace_id: str) -> State:
        """An order that only ends what is left."""
        place = self._folders.place(workspace_id)
        return {
            "id": workspace_id,
            "instance": self._folders.instance,
            "generation": 0,
            "argv": [],
            "environment": {},
            "cwd": "/",
            "socket": str(self._folders.home.editor_socket(workspace_id)),
            "port": None,
            "steps": [],
            "folders": [],
            "limited": [],
            "unlimited": [],
            "memory": "",
            "log": str(self._folders.log_of(workspace_id)),
            "state": str(place / STATE_FILE),
            "fifo": str(place / "output"),
            "user": list(self._folders.owner) if self._folders.owner else None,
            "adopt": None,
            "notices": [],
            "orphans": False,
            "restarts": 0,
            "crashes": [],
            "grace_s": GRACE_S,
        }


def observed(state: State) -> Observation:
    """What the port calls a keeper's state."""
    phase = Phase(state["phase"])
    runs = phase is Phase.starting
    unix, port = state["socket"], state["port"]
    # An older build's keeper, adopted after a kill, has neither of the two: its workspace must be seen all the same.
    notices, waits = state.get("notices", ()), state.get("waits", "")
    editor = Backend(unix=unix) if unix else Backend(address=f"127.0.0.1:{port}", identity=state["id"])
    return Observation(
        id=state["id"],
        generation=state["generation"],
        phase=phase,
        editor=editor if runs else None,
        ports=Backend(listener_of=state["id"]) if runs else None,
        reason=state["reason"],
        limited=tuple(state["limited"]),
        unlimited=tuple(state["unlimited"]),
        restarts=state["restarts"],
        notices=(*notices, waits) if waits else tuple(notices),
    )
