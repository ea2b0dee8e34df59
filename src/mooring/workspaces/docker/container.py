"""What a workspace is to the engine: the container's document made from it, and the observation read back. Pure."""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mooring.model.routes import PORT, Backend
from mooring.model.workspace import Limits, Phase, Workspace, quantity_bytes
from mooring.workspaces.launch import Launch, Places
from mooring.workspaces.ports import Observation

INSTANCE = "mooring.instance"
WORKSPACE = "mooring.workspace"
GENERATION = "mooring.generation"
_EDITOR_PORT = "mooring.editor-port"
_LIMITED = "mooring.limited"
_UNLIMITED = "mooring.unlimited"

HOME = "/home/coder"
DATA = f"{HOME}/.local/share/code-server"
PLACES = Places(home=HOME, data=DATA, editor="code-server")
USER = "1000:1000"
# A fork bomb in one workspace must not take the whole machine's process ids, also where nobody asked for a limit.
_PIDS = 4096
_CPU_PERIOD_US = 100_000
# What was not read yet of the output while Mooring is away; behind that, the oldest goes.
_OUTPUT = {"max-size": "8m", "max-file": "2"}
# What the engine notes of a container that died while it was not there to see it.
_UNSEEN = 255
_STATUS_OOM = "was killed because the workspace's memory limit was reached"


@dataclass(frozen=True, slots=True)
class Names:
    """The engine's names for the things of one workspace: the same for container, network and volume."""

    workspace_id: str

    @property
    def all(self) -> str:
        return f"mooring-{self.workspace_id}"

    @property
    def bridge(self) -> str:
        """The bridge's name, which the guard's rules know by its beginning; at most 15 characters."""
        return f"mrg{self.workspace_id}"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Which limits this engine can enforce, by the names of `Limits`."""

    cpu: bool = True
    memory: bool = True
    pids: bool = True
    storage: bool = False

    @classmethod
    def of(cls, info: Mapping[str, Any], *, storage: bool) -> "Enforcement":
        """From the engine's description; an engine without the cgroup takes a limit and forgets it silently."""
        return cls(
            cpu=bool(info.get("CpuCfsQuota")),
            memory=bool(info.get("MemoryLimit")),
            pids=bool(info.get("PidsLimit")),
            storage=storage,
        )

    def split(self, limits: Limits) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the limits asked for: those in force, and those that cannot be."""
        asked = sorted(limits.model_dump(exclude_none=True))
        return tuple(n for n in asked if getattr(self, n)), tuple(n for n in asked if not getattr(self, n))


def labels(instance: str, workspace: Workspace, launch: Launch, enforcement: Enforcement) -> dict[str, str]:
    """By these a server that comes back finds what runs, and of which start it is."""
    limited, unlimited = enforcement.split(workspace.spec.limits)
    return {
        INSTANCE: instance,
        WORKSPACE: workspace.id,
        GENERATION: str(workspace.generation),
        _EDITOR_PORT: str(launch.port),
        _LIMITED: ",".join(limited),
        _UNLIMITED: ",".join(unlimited),
    }


def document(
    image: Mapping[str, Any],
    launch: Launch,
    limits: Limits,
    tags: Mapping[str, str],
    address: str,
    binds: Sequence[str] = (),
) -> dict[str, Any]:
    """The body of the engine's `containers/create`. `binds` are folders of the machine, `FROM:TO:ro`."""
    names = Names(tags[WORKSPACE])
    config = image["Config"]
    own = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    return {
        "Image": image["Id"],
        "User": USER,
        "WorkingDir": HOME,
        "Hostname": launch.environment["MOORING_WORKSPACE_NAME"],
        "Entrypoint": list(launch.argv) or own,
        "Cmd": [],
        "Env": [f"HOME={HOME}", "USER=coder", *(f"{name}={value}" for name, value in launch.environment.items())],
        "Labels": dict(tags),
        "HostConfig": {**_host_config(names, limits), "Binds": list(binds)},
        "NetworkingConfig": {"EndpointsConfig": {names.all: {"IPAMConfig": {"IPv4Address": address}}}},
    }


def _host_config(names: Names, limits: Limits) -> dict[str, Any]:
    host: dict[str, Any] = {
        "NetworkMode": names.all,
        "Init": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        # Nothing may grow outside the workspace's volume, where no limit would see it and a restart would lose it.
        "ReadonlyRootfs": True,
        "Tmpfs": {"/run": "rw,nosuid,nodev,size=64m,mode=1777"},
        "Mounts": [
            {"Type": "volume", "Source": names.all, "Target": HOME},
            # On the disk, not in memory: compilers fill it. Gone with the container.
            {"Type": "volume", "Target": "/tmp"},  # noqa: S108 - the container's own
            {"Type": "volume", "Target": "/var/tmp"},  # noqa: S108
        ],
        # What `Guard.open_loopback` sends to loopback would be dropped as coming from outside.
        "Sysctls": {"net.ipv4.conf.all.route_localnet": "1"},
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": _OUTPUT},
        "PidsLimit": limits.pids or _PIDS,
    }
    if limits.memory is not None:
        # Without the second, the same amount again is taken from swap.
        host["Memory"] = host["MemorySwap"] = quantity_bytes(limits.memory)
    if limits.cpu is not None:
        host |= {"CpuPeriod": _CPU_PERIOD_US, "CpuQuota": int(limits.cpu * _CPU_PERIOD_US)}
    return host


def workspace_of(container: Mapping[str, Any]) -> str:
    """The workspace that an inspected container belongs to."""
    return str(container["Config"]["Labels"][WORKSPACE])


def generation_of(container: Mapping[str, Any]) -> int:
    """The start that an inspected container belongs to."""
    return int(container["Config"]["Labels"][GENERATION])


def run_of(container: Mapping[str, Any]) -> str:
    """Names one run of a container, by when it began: the same one can be started again."""
    return str(container["State"]["StartedAt"])


def is_running(container: Mapping[str, Any]) -> bool:
    """Whether its processes exist."""
    return bool(container["State"]["Running"])


def address_of(container: Mapping[str, Any]) -> str:
    """Its address, also while it is dead: nobody else is in its network."""
    network = container["NetworkSettings"]["Networks"][Names(workspace_of(container)).all]
    return str(network["IPAMConfig"]["IPv4Address"])


def observed(container: Mapping[str, Any]) -> Observation:
    """The observation of a container that runs, or is about to run again."""
    tags = container["Config"]["Labels"]
    workspace_id, address = workspace_of(container), address_of(container)
    return Observation(
        workspace_id,
        generation_of(container),
        Phase.starting,
        editor=Backend(address=f"{address}:{tags[_EDITOR_PORT]}", identity=workspace_id),
        ports=Backend(address=f"{address}:{PORT}", identity=workspace_id),
        limited=tuple(filter(None, tags[_LIMITED].split(","))),
        unlimited=tuple(filter(None, tags[_UNLIMITED].split(","))),
    )


def left_dead(container: Mapping[str, Any]) -> Observation:
    """The observation of a container that died while no server watched it."""
    reason = f"the editor {why_dead(container)} while Mooring was away"
    return Observation(workspace_of(container), generation_of(container), Phase.stopped, reason=reason)


def death_of(container: Mapping[str, Any]) -> str:
    """Names one death of a container: a restart of the same one can die again."""
    return f"{container['Id']} {container['State']['FinishedAt']}"


def why_dead(container: Mapping[str, Any]) -> str:
    """Why a container ended, for a person."""
    state = container["State"]
    if state.get("OOMKilled"):
        return _STATUS_OOM
    status = int(state["ExitCode"])
    if status == _UNSEEN:
        return f"was killed with the Docker engine, or ended with exit status {_UNSEEN}"
    if 128 < status <= 128 + signal.SIGRTMAX:  # noqa: PLR2004 - sh(1): killed by signal status - 128
        return f"was killed by signal {status - 128}"
    return f"ended with exit status {status}" + (f": {state['Error']}" if state.get("Error") else "")


_TIMESTAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def stamped(line: bytes) -> tuple[str, bytes]:
    """Timestamp and text of a message of the engine's log; a message without one keeps an empty timestamp."""
    stamp, _, text = line.partition(b" ")
    return (stamp.decode(), text) if _TIMESTAMP.fullmatch(stamp) else ("", line)
