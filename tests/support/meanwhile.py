"""Work that is about minutes and mostly waits: what the selected tests need of it is done at the same time, once.

    def work() -> None: ...            # or a coroutine function: it gets a loop of its own

    @waits_for(work)
    def test_something(done: Done) -> None:
        done(work)

The work brings a Mooring of its own, so that nothing disturbs it, and ends before the test's own rules are looked at.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from support import house

MARK = "waits"
WITHIN_S = 600
Work = Callable[[], Any]


def waits_for(work: Work) -> pytest.MarkDecorator:
    """Mark a test that is about this work."""
    # Called with nothing but a function, a mark decorates it.
    return getattr(pytest.mark, MARK).with_args(work)  # type: ignore[no-any-return]


class Done:
    """The ends of all that was done at the same time."""

    def __init__(self, ends: dict[Work, Future[None]]) -> None:
        self._ends = ends

    def __call__(self, work: Work) -> None:
        """Fail as that work failed."""
        self._ends[work].result()


def do(items: Iterable[pytest.Item]) -> Done:
    """Do the work of these tests. Nothing of it is left afterwards."""
    works = dict.fromkeys(work for item in items for mark in item.iter_markers(MARK) for work in mark.args)
    with house.nothing_left(), ThreadPoolExecutor(len(works)) as pool:
        return Done({work: pool.submit(_do, work) for work in works})


def _do(work: Work) -> None:
    if inspect.iscoroutinefunction(work):
        asyncio.run(_alone(work))
    else:
        work()


async def _alone(work: Work) -> None:
    await work()
    left = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
    assert not left, f"tasks left behind: {left}"
