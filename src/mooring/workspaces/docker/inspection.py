"""Looks into a running container: what it uses, and who listens in it."""

from collections.abc import Mapping
from typing import Any

from mooring.errors import Conflict, MooringError, NotFound
from mooring.workspaces.docker import container as shape
from mooring.workspaces.docker.engine import DockerEngine, asking
from mooring.workspaces.docker.exec import captured
from mooring.workspaces.ports import Usage

_LISTEN = "0A"  # TCP_LISTEN of the kernel's tcp_states.h, as /proc/net/tcp writes it


class Inspection:
    """Asks the engine; only when somebody asks, since idle workspaces must cost nothing."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine

    async def usage(self, name: str) -> Usage | None:
        """None when the container does not run."""
        try:
            async with asking(f"processes of {name}"):
                rows = (await self._engine.container(name).top(ps_args="-eo pid,comm"))["Processes"]
            one = {"stream": "false", "one-shot": "true"}
            stats = await self._engine.document(f"containers/{name}/stats", one)
        except (NotFound, Conflict):
            return None
        return Usage(
            cpu_s=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            memory_bytes=_resident(stats["memory_stats"]),
            commands=frozenset(row[1] for row in rows),
        )

    async def listener(self, name: str, port: int) -> str | None:
        """Where the port is reached when a process in the container listens on it."""
        container = await self._engine.inspect(name)
        if container is None or not shape.is_running(container):
            return None
        address = shape.address_of(container)
        try:
            table = await captured(self._engine, container["Id"], ["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        except MooringError:
            return None
        rows = (line.split() for line in table.decode(errors="replace").splitlines())
        listens = any(len(row) > 3 and row[3] == _LISTEN and _port(row[1]) == port for row in rows)  # noqa: PLR2004
        return f"{address}:{port}" if listens else None


def _port(local: str) -> int:
    return int(local.rpartition(":")[2], 16)


def _resident(memory: Mapping[str, Any]) -> int:
    # What the kernel would give back at once is not the workspace's need; the names are those of cgroup v1 and v2.
    # An engine without the memory cgroup tells none: its workspaces work, and are idle, all the same.
    counts = memory.get("stats", {})
    cache = counts.get("total_inactive_file", counts.get("inactive_file", 0))
    return max(0, int(memory.get("usage", 0)) - int(cache))
