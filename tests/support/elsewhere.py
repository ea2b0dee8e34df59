"""What is asynchronous, for a test without a loop, or for several tests: in a thread with a loop of its own."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")
_WITHIN_S = 30.0


@contextmanager
def elsewhere(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Have `manager` open until the end of the block."""
    ready: Future[T] = Future()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with manager as made:
            ready.set_result(made)
            await stop.wait()

    def work() -> None:
        try:
            loop.run_until_complete(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ready.result(_WITHIN_S)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(_WITHIN_S)
        assert not thread.is_alive(), "what was open elsewhere does not end"
