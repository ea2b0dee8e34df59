"""A wait that ends within the call that ends it, not in the event loop's next turn."""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context


class Turn:
    """What one task waits for again and again; `take` runs the task at once, up to its next wait.

    A future tells its task by way of the loop, which looks for events once more in between: half of what a small
    answer costs. This is as much of a future as a task asks of one (see `asyncio.isfuture`); cancelling works too.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = False
        self._callback: Callable[[Turn], object] | None = None
        self._context: Context | None = None

    def __await__(self) -> Generator["Turn", None, None]:
        self._asyncio_future_blocking = True
        yield self

    def take(self) -> None:
        """Run the task if it waits; soon, when this is called from within a task: two cannot run at the same time."""
        if asyncio.current_task(self._loop) is not None:
            self._loop.call_soon(self.take)
            return
        callback, self._callback = self._callback, None
        if callback is not None and self._context is not None:
            self._context.run(callback, self)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As a task asks."""
        return self._loop

    def add_done_callback(self, callback: Callable[["Turn"], object], *, context: Context) -> None:
        """The waiting task's way to go on."""
        self._callback, self._context = callback, context

    def result(self) -> None:
        """Nothing; a task asks before it goes on."""

    def cancel(self, msg: str | None = None) -> bool:  # noqa: ARG002 - as a task calls it
        """Have the task go on soon, which finds its own cancellation then."""
        self._loop.call_soon(self.take)
        return False
