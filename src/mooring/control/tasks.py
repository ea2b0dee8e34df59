"""Every task has a name and an owner. An owner ends its tasks, newest first, before it goes."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

log = structlog.get_logger(__name__)

_LAST_S = 0.1
"""What each task gets in any case, so that one that does not obey takes the chance from no other."""


class Tasks:
    """Owns tasks from `async with` to its end, where those still running are cancelled, newest first.

    A task that fails is logged with its name; one started by `forever` that returns is an incident in the log too.
    """

    def __init__(self, name: str, *, stop_within_s: float = 10.0) -> None:
        self._name = name
        self._stop_within_s = stop_within_s
        self._running: dict[asyncio.Task[Any], None] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that may end by itself."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}/{name}")
        self._running[task] = None
        task.add_done_callback(self._ended)
        return task

    def forever(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Start a task whose end before the owner's is an incident."""
        self.spawn(name, work).add_done_callback(_incident)

    async def stop(self) -> None:
        """Cancel what runs, newest first, and wait for it; a task that does not obey in time is named in the log.

        What is started meanwhile is ended too. When this call itself is cancelled, all of it is still told to end.
        """
        deadline = asyncio.get_running_loop().time() + self._stop_within_s
        asked: set[asyncio.Task[Any]] = set()
        try:
            while (task := next((t for t in reversed(self._running) if t not in asked), None)) is not None:
                asked.add(task)
                task.cancel()
                left = max(_LAST_S, deadline - asyncio.get_running_loop().time())
                _, pending = await asyncio.wait([task], timeout=left)
                if pending:
                    log.error("task did not stop", task=task.get_name(), within_s=self._stop_within_s)
        except asyncio.CancelledError:
            for task in self._running.keys() - asked:
                task.cancel()
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), exc_info=error)


def _incident(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        log.error("eternal task ended", task=task.get_name())
