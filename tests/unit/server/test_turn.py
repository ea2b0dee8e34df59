"""A wait that ends within the call that ends it is a wait like any other to asyncio."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from mooring.server.turn import Turn


async def waits(turn: Turn, seen: list[str]) -> None:
    """Says who it is each time it is its turn, and uses what belongs to a task."""
    try:
        while True:
            await turn
            task = asyncio.current_task()
            assert task is not None
            async with asyncio.timeout(1):
                seen.append(task.get_name())
                await asyncio.sleep(0)
    finally:
        seen.append("ended")


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel it, and see it end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_the_task_runs_within_the_call(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """As itself, up to its next wait, with time limits; soon, where another task runs; it is cancelled like others."""

    async def work() -> None:
        loop, seen = asyncio.get_running_loop(), []
        turn = Turn(loop)
        loop.call_soon(turn.take)
        task = loop.create_task(waits(turn, seen), name="it")
        await asyncio.sleep(0)
        assert not seen
        for count in (1, 2):
            loop.call_soon(turn.take)
            loop.call_soon(lambda count=count: seen.append(f"after {count}"))
            await asyncio.sleep(0.001)
        assert seen == ["it", "after 1", "it", "after 2"]
        turn.take()
        assert len(seen) == 4
        await asyncio.sleep(0.001)
        assert seen[4:] == ["it"]
        await cancelled(task)
        assert seen[-1] == "ended"
        turn.take()
        await cancelled(loop.create_task(waits(turn, seen)))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())
