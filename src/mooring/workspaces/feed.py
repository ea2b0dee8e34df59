"""The latest observation of each workspace, and followers that see the latest of each, however slow they are."""

import asyncio
from collections.abc import AsyncIterator

from mooring.workspaces.ports import Observation


class Feed:
    """Publishes observations. A follower that falls behind skips to the latest of a workspace, never past one."""

    def __init__(self) -> None:
        self._latest: dict[str, Observation] = {}
        self._followers: dict[int, tuple[dict[str, Observation], asyncio.Event]] = {}
        self._count = 0

    def latest(self, workspace_id: str) -> Observation | None:
        """The last one published."""
        return self._latest.get(workspace_id)

    def publish(self, observation: Observation) -> None:
        """Tell the followers, unless it is what they know."""
        if self._latest.get(observation.id) == observation:
            return
        self._latest[observation.id] = observation
        for pending, ready in self._followers.values():
            pending[observation.id] = observation
            ready.set()

    def forget(self, workspace_id: str) -> None:
        """Leave it out for followers to come."""
        self._latest.pop(workspace_id, None)

    async def follow(self) -> AsyncIterator[Observation]:
        """The latest of each, then each change, for ever."""
        self._count += 1
        key, pending, ready = self._count, dict(self._latest), asyncio.Event()
        self._followers[key] = (pending, ready)
        try:
            while True:
                while pending:
                    yield pending.pop(next(iter(pending)))
                ready.clear()
                await ready.wait()
        finally:
            del self._followers[key]
