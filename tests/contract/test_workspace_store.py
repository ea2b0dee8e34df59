"""What every store of workspaces promises: in memory, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, NotFound, StaleRevision
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Limits, Phase, Spec, Workspace
from mooring.workspaces.memory import MemoryEventLog, MemoryStore, MemoryTemplates
from mooring.workspaces.ports import EventLog, TemplateHistory, WorkspaceStore
from mooring.workspaces.sql import SqlEventLog, SqlStore, SqlTemplates
from support import databases
from support.postgres import Postgres

Parts = tuple[WorkspaceStore, EventLog, TemplateHistory]


@pytest.fixture(params=("memory", *databases.KINDS))
async def parts(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> AsyncIterator[Parts]:
    """A store, its event log and its templates."""
    if request.param == "memory":
        log = MemoryEventLog(SystemClock())
        yield MemoryStore(log), log, MemoryTemplates()
        return
    with databases.url_of(request.param, tmp_path, postgres) as url:
        async with databases.opened(url) as database:
            events = SqlEventLog(database, SystemClock())
            yield SqlStore(database, events), events, SqlTemplates(database)


@pytest.fixture
def store(parts: Parts) -> WorkspaceStore:
    """The store of `parts`."""
    return parts[0]


def workspace(number: int = 1, *, owner: str = "ada", name: str | None = None) -> Workspace:
    """A workspace with every field set."""
    return Workspace(
        id=f"{number:010d}",
        owner=owner,
        name=name or f"w{number}",
        spec=Spec(
            template="code-server",
            template_version=3,
            limits=Limits(cpu=1.5, memory="512Mi"),
            environment={"COLOUR": "grün\t'\"; DROP TABLE workspaces; --"},
            repository="https://example.com/a/b.git",
        ),
        desired=Desired.running,
        phase=Phase.starting,
        reason="äöü\n2 lines",
        generation=4,
        started=Spec(template="code-server", template_version=2, limits=Limits(pids=64)),
        created_at=1732170000.123456,
        started_at=1732170001.5,
        active_at=None,
        awake_until=1732170002.25,
        limited=("cpu", "memory"),
    )


async def test_a_workspace_comes_back_as_it_was(store: WorkspaceStore) -> None:
    """Every field survives, and the first revision is 1."""
    made = await store.create(workspace())
    assert made == replace(workspace(), revision=1)
    assert await store.get(made.id) == made
    assert await store.find("ada", "w1") == made


async def test_absence_is_not_found(store: WorkspaceStore) -> None:
    """What is not there is NotFound, and removing it is no error."""
    for call in (store.get("0000000009"), store.find("ada", "w9"), store.update(workspace(9), expected=1)):
        with pytest.raises(NotFound):
            await call
    await store.remove("0000000009")


async def test_a_name_is_unique_for_its_owner(store: WorkspaceStore) -> None:
    """Two of one owner cannot have one name, two owners can; an update cannot take a name either."""
    await store.create(workspace(1, name="same"))
    await store.create(workspace(2, name="same", owner="bob"))
    with pytest.raises(Conflict, match="ada has a workspace same already"):
        await store.create(workspace(3, name="same"))
    other = await store.create(workspace(4))
    with pytest.raises(Conflict, match="ada has a workspace same already"):
        await store.update(replace(other, name="same"), expected=1)
    assert (await store.get(other.id)).revision == 1


async def test_a_deleted_workspace_does_not_hold_its_name(store: WorkspaceStore) -> None:
    """While one is being deleted, another may have its name, and is the one that is found."""
    old = await store.create(workspace(1, name="same"))
    await store.update(replace(old, desired=Desired.deleted), expected=1)
    new = await store.create(workspace(2, name="same"))
    assert await store.find("ada", "same") == new
    await store.remove(old.id)
    assert await store.find("ada", "same") == new


async def test_a_write_needs_the_current_revision(store: WorkspaceStore) -> None:
    """Each write counts the revision up; one that saw an older revision changes nothing."""
    made = await store.create(workspace())
    second = await store.update(replace(made, reason="two"), expected=1)
    assert second.revision == 2
    with pytest.raises(StaleRevision, match="2"):
        await store.update(replace(made, reason="late"), expected=1)
    assert await store.get(made.id) == second


async def test_of_many_writers_at_once_one_wins(store: WorkspaceStore) -> None:
    """Twenty writers that saw the same revision: one is right, nineteen are told, nothing is mixed."""
    made = await store.create(workspace())

    async def write(number: int) -> bool:
        try:
            await store.update(replace(made, reason=str(number)), expected=1)
        except StaleRevision:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(number)) for number in range(20)]
    winners = [number for number, task in enumerate(tasks) if task.result()]
    assert len(winners) == 1
    assert (await store.get(made.id)).reason == str(winners[0])
    assert (await store.get(made.id)).revision == 2


async def test_pages_have_all_in_the_order_of_ids(store: WorkspaceStore) -> None:
    """Pages follow each other without gap or repetition, of one owner or of all."""
    for number in (5, 3, 1, 4, 2):
        await store.create(workspace(number, owner="bob" if number == 3 else "ada"))
    first = await store.page(owner=None, after=None, limit=2)
    second = await store.page(owner=None, after=first.cursor, limit=3)
    assert [w.id[-1] for w in first.items + second.items] == ["1", "2", "3", "4", "5"]
    assert second.cursor is None
    mine = await store.page(owner="bob", after=None, limit=9)
    assert [w.id[-1] for w in mine.items] == ["3"]


async def test_removing_takes_the_events_along(parts: Parts) -> None:
    """A workspace that is gone has no history, its neighbour's stays."""
    store, log, _ = parts
    for number in (1, 2):
        made = await store.create(workspace(number))
        await log.append(made.id, "created", "created")
    await store.remove(workspace(1).id)
    assert [e.workspace for e in await log.after(None, 0)] == [workspace(2).id]
    with pytest.raises(NotFound):
        await store.get(workspace(1).id)


async def test_template_versions_are_kept_for_good(parts: Parts) -> None:
    """A version is kept once; the same again is no news, another under the same number is refused."""
    history = parts[2]
    template = Template(name="light", version=2, editor=Editor(command=("a", "{home}")))
    assert await history.kept("light", 2) is None
    await history.keep(template)
    await history.keep(template)
    with pytest.raises(Conflict):
        await history.keep(template.model_copy(update={"description": "other"}))
    assert await history.kept("light", 2) == template
    assert await history.kept("light", 1) is None


async def test_the_history_of_a_removed_workspace_ends(parts: Parts) -> None:
    """Who follows a workspace that is removed reaches the end; who follows another one, or all, goes on."""
    store, log, _ = parts
    one, two = [await store.create(workspace(number, name=f"ws{number}")) for number in (1, 2)]

    async def hear(followed: str | None, heard: list[str]) -> None:
        async with aclosing(log.follow(followed, 0)) as events:
            async for event in events:
                heard.append(event.text)
                if event.kind == "last":
                    break

    of_one, again, of_two, of_all = heard = [list[str]() for _ in range(4)]
    async with asyncio.timeout(60), Tasks("test") as tasks:
        followed = (one.id, one.id, two.id, None)
        hearing = [tasks.spawn("hear", hear(*each)) for each in zip(followed, heard, strict=True)]
        for made in (one, two):
            await log.append(made.id, "tick", made.name)
        while not ("ws1" in of_one and "ws1" in again and "ws1" in of_all):
            await asyncio.sleep(0.01)
        await store.remove(one.id)
        for task in hearing[:2]:
            await task
        await log.append(two.id, "last", "last")
        for task in hearing[2:]:
            await task
    assert (of_one, again, of_two, of_all) == (["ws1"], ["ws1"], ["ws2", "last"], ["ws1", "ws2", "last"])


async def test_whoever_follows_a_removed_workspace_reaches_its_end(parts: Parts) -> None:
    """It may be gone before the follower has begun, or while it begins: nothing will ever happen to it again."""
    store, log, _ = parts
    gone, going = [await store.create(workspace(number)) for number in (1, 2)]
    await store.remove(gone.id)

    async def end(followed: str) -> None:
        async with aclosing(log.follow(followed, 0)) as events:
            async for _ in events:
                raise AssertionError

    async with asyncio.timeout(60), Tasks("test") as tasks:
        await end(gone.id)
        task = tasks.spawn("end", end(going.id))
        # One step of it: then it waits for the database.
        await asyncio.sleep(0)
        await store.remove(going.id)
        await task
