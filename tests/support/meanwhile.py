"""Work that is about minutes and mostly waits: what the selected tests need of it is done at the same time, once.

    def work() -> None: ...            # or a coroutine function: it gets a loop of its own

    @waits_for(work)
    def test_something(done: Done) -> None:
        done(work)

The work brings a Mooring of its own, so that nothing disturbs it, and ends before the test's own rules are looked at.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from support import house
from support.waiting import given_up

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
    """Do the work of these tests. Nothing of it is left afterwards, nor where the session is interrupted."""
    works = dict.fromkeys(work for item in items for mark in item.iter_markers(MARK) for work in mark.args)
    with house.nothing_left(), ThreadPoolExecutor(len(works)) as pool, _interruption() as interruption:
        ends = {work: pool.submit(interruption.ends, work) for work in works}
        wait(ends.values())
        return Done(ends)


class _Interruption:
    """Ends work from outside, as Ctrl-C would: Python gives signals to the first thread alone."""

    def __init__(self) -> None:
        self._come = threading.Event()
        self._loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    def come(self) -> None:
        self._come.set()
        for loop, task in self._loops:
            # One that has ended by itself is closed.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

    def ends(self, work: Work) -> None:
        """Do this work, until it comes."""
        given_up.set(self._come)
        if inspect.iscoroutinefunction(work):
            asyncio.run(self._alone(work))
        else:
            work()

    async def _alone(self, work: Work) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._loops.append((asyncio.get_running_loop(), task))
        # It came before this loop was there to be told.
        if self._come.is_set():
            raise asyncio.CancelledError
        await work()
        left = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
        assert not left, f"tasks left behind: {left}"


@contextmanager
def _interruption() -> Iterator[_Interruption]:
    interruption = _Interruption()
    try:
        yield interruption
    except BaseException:
        interruption.come()
        raise
