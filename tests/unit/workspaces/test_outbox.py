"""Events while the database is away: kept in order, with their own time, bounded."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.workspaces import outbox
from mooring.workspaces.memory import MemoryEventLog
from mooring.workspaces.outbox import Outbox
from mooring.workspaces.ports import Event

ONE, TWO = "workspace1", "workspace2"


class GoneLog(MemoryEventLog):
    """A log whose database can go away, or refuse one text for good."""

    gone = False
    hangs = False
    refused = ""
    asked = 0

    async def append(
        self, workspace_id: str, kind: str, text: str, data: Mapping[str, Any] | None = None, *, at: float | None = None
    ) -> Event:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.gone:
            raise Unavailable("the database does not answer")
        if text == self.refused:
            raise ValueError("the database refuses this text")
        return await super().append(workspace_id, kind, text, data, at=at)


@pytest.fixture
def log() -> GoneLog:
    """An empty log."""
    return GoneLog(SystemClock())


async def texts(log: GoneLog) -> list[str]:
    """What is kept."""
    return [event.text for event in await log.after(None, 0)]


async def test_an_event_is_written_when_tell_returns(log: GoneLog) -> None:
    """While the database answers, what was told can be read at once."""
    await Outbox(log, SystemClock()).tell(ONE, "tick", "a", {"n": 1})
    (event,) = await log.after(ONE, 0)
    assert (event.kind, event.text, event.data) == ("tick", "a", {"n": 1})


async def test_events_wait_for_the_database(log: GoneLog) -> None:
    """What happens while it is away is written once it is back: all of it, in order, with the time it happened."""
    box = Outbox(log, SystemClock())
    async with Tasks("test") as tasks:
        tasks.forever("events", box.run())
        log.gone = True
        for number in range(5):
            await box.tell((ONE, TWO)[number % 2], "tick", str(number), at=100.0 + number)
        await asyncio.sleep(0.3)
        assert (box.depth, await texts(log)) == (5, [])
        assert box.problems() == ("5 events wait to be written: the database does not answer",)
        log.gone = False
        async with asyncio.timeout(30):
            while box.depth:
                await asyncio.sleep(0.01)
        await box.tell(ONE, "tick", "after")
    kept = await log.after(None, 0)
    assert [event.text for event in kept] == ["0", "1", "2", "3", "4", "after"]
    assert box.problems() == ()
    assert [event.at for event in kept[:5]] == [100.0, 101.0, 102.0, 103.0, 104.0]


async def test_an_event_does_not_wait_for_a_database_that_is_known_to_be_away(log: GoneLog) -> None:
    """After the first failure nobody asks the database for each further event."""
    box = Outbox(log, SystemClock())
    log.gone = True
    for _ in range(10):
        await box.tell(ONE, "tick", "")
    assert (log.asked, box.depth) == (1, 10)


async def test_one_that_is_cancelled_half_way_is_still_written(log: GoneLog) -> None:
    """Whoever told it may end before the database has answered."""
    box = Outbox(log, SystemClock())
    log.hangs = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await box.tell(ONE, "tick", "a")
    log.hangs = False
    async with Tasks("test") as tasks:
        tasks.forever("events", box.run())
        async with asyncio.timeout(30):
            while not await texts(log):
                await asyncio.sleep(0.01)
    assert await texts(log) == ["a"]


async def test_one_that_the_database_refuses_holds_up_no_other(log: GoneLog) -> None:
    """It is given up, and said in the program's log."""
    box = Outbox(log, SystemClock())
    log.refused = "bad"
    for text in ("a", "bad", "b"):
        await box.tell(ONE, "tick", text)
    assert await texts(log) == ["a", "b"]


async def test_the_oldest_are_given_up_first(log: GoneLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory is bounded; the log keeps the newest of a workspace, so it would drop the oldest too."""
    monkeypatch.setattr(outbox, "MOST", 3)
    box = Outbox(log, SystemClock())
    log.gone = True
    for number in range(5):
        await box.tell(ONE, "tick", str(number))
    log.gone = False
    await box.flush(10)
    assert await texts(log) == ["2", "3", "4"]


async def test_what_was_removed_gets_no_more_events(log: GoneLog) -> None:
    """Events of a workspace that is deleted meanwhile are dropped; its neighbour's are written."""
    box = Outbox(log, SystemClock())
    log.gone = True
    await box.tell(ONE, "tick", "gone")
    await box.tell(TWO, "tick", "stays")
    box.forget(ONE)
    log.gone = False
    await box.flush(10)
    assert await texts(log) == ["stays"]


async def test_a_stop_does_not_wait_for_ever(log: GoneLog) -> None:
    """A database that hangs at a normal stop ends the flush at its deadline."""
    box = Outbox(log, SystemClock())
    log.gone = True
    await box.tell(ONE, "tick", "a")
    log.gone, log.hangs = False, True
    async with asyncio.timeout(30):
        await box.flush(0.05)
    assert box.depth == 1
