"""Tasks end with their owner, newest first, and none fails unseen."""

import asyncio
import random

import pytest
import structlog

from mooring.control.tasks import Tasks
from support.simulation import run


@pytest.fixture(autouse=True)
def logs() -> object:
    """What is logged meanwhile."""
    with structlog.testing.capture_logs() as captured:
        yield captured


async def ends(name: str, order: list[str], *, takes_s: float = 0.0) -> None:
    """Wait to be cancelled, and note when."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(takes_s)
        order.append(name)


def test_tasks_end_newest_first_one_after_the_other() -> None:
    """What was started last, and may use the others, is gone before they are told to end."""
    order: list[str] = []

    async def scenario(_: random.Random) -> None:
        async with Tasks("owner") as tasks:
            for number, takes_s in enumerate((0.0, 3.0, 1.0)):
                tasks.spawn(f"{number}", ends(f"{number}", order, takes_s=takes_s))
                await asyncio.sleep(1)

    run(scenario, 0)
    assert order == ["2", "1", "0"]


def test_a_failed_task_is_in_the_log_with_its_name(logs: list[dict[str, object]]) -> None:
    """Nobody awaits an owned task, so its failure is logged."""

    async def scenario(_: random.Random) -> None:
        async def fails() -> None:
            raise ValueError("a bug")

        async with Tasks("owner") as tasks:
            tasks.spawn("one", fails())
            await asyncio.sleep(1)

    run(scenario, 0)
    assert [(entry["event"], entry["task"]) for entry in logs] == [("task failed", "owner/one")]


def test_an_eternal_task_that_returns_is_an_incident(logs: list[dict[str, object]]) -> None:
    """A loop that ends silently would look like one that has nothing to do."""

    async def scenario(_: random.Random) -> None:
        async with Tasks("owner") as tasks:
            tasks.forever("loop", asyncio.sleep(1))
            await asyncio.sleep(2)

    run(scenario, 0)
    assert [entry["event"] for entry in logs] == ["eternal task ended"]


def test_a_task_that_does_not_obey_is_named_and_does_not_hold_up_the_others(logs: list[dict[str, object]]) -> None:
    """The deadline is one for all of them together."""
    order: list[str] = []

    async def scenario(_: random.Random) -> None:
        async with Tasks("owner", stop_within_s=5) as tasks:
            tasks.spawn("good", ends("good", order))
            tasks.spawn("stubborn", ends("stubborn", order, takes_s=60))
            await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == pytest.approx(6)
        await asyncio.sleep(100)

    run(scenario, 0)
    assert order == ["good", "stubborn"]
    assert [(entry["event"], entry["task"]) for entry in logs] == [("task did not stop", "owner/stubborn")]


def test_what_is_started_during_the_stop_ends_too() -> None:
    """A last task that another one starts while it goes is not left behind."""
    order: list[str] = []

    async def scenario(_: random.Random) -> None:
        async with Tasks("owner") as tasks:

            async def parent() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    tasks.spawn("child", ends("child", order))
                    await asyncio.sleep(0.1)

            tasks.spawn("parent", parent())
            await asyncio.sleep(1)

    run(scenario, 0)
    assert order == ["child"]


def test_a_stop_that_is_cancelled_still_ends_every_task() -> None:
    """An impatient caller leaves no task running."""
    order: list[str] = []

    async def scenario(_: random.Random) -> None:
        tasks = Tasks("owner", stop_within_s=1000)
        for number in range(3):
            tasks.spawn(f"{number}", ends(f"{number}", order, takes_s=50))
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await tasks.stop()
        await asyncio.sleep(51)

    run(scenario, 0)
    assert sorted(order) == ["0", "1", "2"]
