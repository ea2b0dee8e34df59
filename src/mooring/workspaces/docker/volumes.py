"""The volume that holds a workspace's files, with a size where the engine's disk has quotas."""

from typing import Any

import structlog

from mooring.errors import Conflict, Misconfigured, NotFound, Unavailable
from mooring.workspaces.docker.container import INSTANCE, WORKSPACE, Names
from mooring.workspaces.docker.engine import DockerEngine, asking

log = structlog.get_logger(__name__)

_SIZE = "mooring.size"


class Volumes:
    """One named volume a workspace."""

    def __init__(self, engine: DockerEngine, instance: str) -> None:
        self._engine = engine
        self._instance = instance

    async def ensure(self, workspace_id: str, size: int | None) -> bool:
        """Make it if there is none; whether it is limited to `size` bytes. An existing one keeps the size it has."""
        kept = await self._kept(workspace_id)
        if kept is not None:
            return size is not None and (kept.get("Labels") or {}).get(_SIZE) == str(size)
        if size is not None and await self._sized(workspace_id, size):
            return True
        await self._create(workspace_id, {})
        return False

    async def remove(self, workspace_id: str) -> None:
        """Remove it with everything in it. Absence is no error."""
        name = Names(workspace_id).all
        try:
            async with asking(f"removing the volume {name}", 300.0):
                await (await self._engine.docker.volumes.get(name)).delete()  # type: ignore[no-untyped-call]
        except NotFound:
            return
        except Conflict as error:
            # Still held by the container that is just being removed.
            raise Unavailable(error.detail) from error

    async def _kept(self, workspace_id: str) -> dict[str, Any] | None:
        name = Names(workspace_id).all
        try:
            async with asking(f"volume {name}"):
                volume = await self._engine.docker.volumes.get(name)  # type: ignore[no-untyped-call]
                return dict(await volume.show())
        except NotFound:
            return None

    async def _sized(self, workspace_id: str, size: int) -> bool:
        try:
            await self._create(workspace_id, {"size": str(size)})
        except (Unavailable, Misconfigured) as error:
            log.info("storage is not limited", workspace=workspace_id, error=error.detail)
            return False
        return True

    async def _create(self, workspace_id: str, options: dict[str, str]) -> None:
        name = Names(workspace_id).all
        labels = {INSTANCE: self._instance, WORKSPACE: workspace_id}
        if "size" in options:
            labels[_SIZE] = options["size"]
        async with asking(f"volume {name}"):
            await self._engine.docker.volumes.create(  # type: ignore[no-untyped-call]
                {"Name": name, "Labels": labels, "DriverOpts": options}
            )
