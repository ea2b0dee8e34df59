"""The use cases: who may do what, which input is refused, and what a change means."""

import asyncio
from contextlib import aclosing

import pytest

from mooring.errors import Conflict, InvalidInput, NotFound, StaleRevision
from mooring.model.activity import Activity
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, IdleRule, Limits, Phase
from mooring.workspaces.memory import MemoryTemplates
from mooring.workspaces.pages import Owned
from mooring.workspaces.ports import Channel
from mooring.workspaces.requests import Caller, Change, NewWorkspace
from mooring.workspaces.templates import Catalogue
from support.workspaces import ADA, ADMIN, LIGHT, StageTemplates, stage

BOB = Caller("bob")


async def test_defaults_come_from_the_template() -> None:
    """What is absent is the template's; a limit that is given goes before, the others stay."""
    async with stage() as it:
        new = NewWorkspace(name="one", template="go-docker", limits=Limits(cpu=1.0), start=False)
        made = await it.service.create(ADA, new)
        assert made.spec.limits == Limits(cpu=1.0, memory="4Gi", pids=4096)
        assert made.spec.idle == IdleRule()
        assert (made.desired, made.phase, made.generation) == (Desired.stopped, Phase.stopped, 0)
        assert made.spec.template_version == (await StageTemplates(LIGHT).get("go-docker")).version


@pytest.mark.parametrize(
    "name", ["", "x", "One", "a--b", "-a", "a-", "xn-a", "a" * 33, "a_b", "a.b", "../a", "a\n", "a$b", "ä1"]
)
async def test_a_name_against_the_rule_is_refused(name: str) -> None:
    """The error names the field and says what is allowed; nothing is made."""
    async with stage() as it:
        with pytest.raises(InvalidInput, match="name must be 2 to 32 lower-case") as caught:
            await it.create(name)
        assert caught.value.field == "name"
        with pytest.raises(InvalidInput):
            await it.service.rename(ADA, (await it.create("one", start=False)).id, name)
        assert len((await it.store.page(owner=None, after=None, limit=9)).items) == 1


async def test_what_does_not_exist_cannot_be_made() -> None:
    """An unknown template is bad input of the field template."""
    async with stage() as it:
        with pytest.raises(InvalidInput, match="there is no template nothing") as caught:
            await it.create(template="nothing")
        assert caught.value.field == "template"


async def test_a_name_is_taken_once() -> None:
    """A second workspace of that name, and a rename to it, are conflicts."""
    async with stage() as it:
        await it.create("one", start=False)
        two = await it.create("two", start=False)
        with pytest.raises(Conflict, match="has a workspace one already"):
            await it.create("one")
        with pytest.raises(Conflict, match="has a workspace one already"):
            await it.service.rename(ADA, two.id, "one")


async def test_another_persons_workspace_does_not_exist() -> None:
    """Whatever is asked, the answer is the one for a workspace that is not there."""
    async with stage() as it:
        made = await it.create()
        service = it.service
        calls = [
            service.get(BOB, made.id),
            service.find(BOB, "ada", "one"),
            service.start(BOB, made.id),
            service.stop(BOB, made.id),
            service.restart(BOB, made.id),
            service.rename(BOB, made.id, "two"),
            service.update(BOB, made.id, Change(idle=IdleRule(after_s=0))),
            service.delete(BOB, made.id),
            service.keep_awake(BOB, made.id, 1e12),
            service.move_to_template(BOB, made.id),
            service.events(BOB, made.id),
            service.exec(BOB, made.id, ["id"], {}, tty=False),
            service.logs(BOB, made.id),
            anext(service.follow(BOB, made.id)),
        ]
        for call in calls:
            with pytest.raises(NotFound, match="no such workspace"):
                await call
        assert (await service.page(BOB, owner="ada", limit=10)).items == ()
        assert (await service.page(BOB, limit=10)).items == ()


async def test_an_administrator_manages_and_does_not_enter() -> None:
    """An administrator sees, stops and creates for others; a command in somebody's workspace is not theirs to run."""
    async with stage() as it:
        made = await it.service.create(ADMIN, NewWorkspace(name="one", template="light", owner="ada"))
        await it.until(made.id, Phase.running)
        assert [w.id for w in (await it.service.page(ADMIN, limit=10)).items] == [made.id]
        with pytest.raises(NotFound):
            await it.service.exec(ADMIN, made.id, ["id"], {}, tty=False)
        with pytest.raises(InvalidInput, match="only an administrator"):
            await it.service.create(BOB, NewWorkspace(name="two", template="light", owner="ada"))
        assert await Owned(it.store).count("ada") == 1


async def test_the_process_runtime_serves_one_person() -> None:
    """A second person is told to use the docker runtime, also when both come at the same moment."""
    async with stage() as it:
        refused: list[str] = []

        async def create(name: str) -> None:
            try:
                await it.service.create(Caller(name), NewWorkspace(name="one", template="light"))
            except Conflict as error:
                refused.append(error.detail)

        async with asyncio.TaskGroup() as group:
            for name in ("ada", "bob"):
                group.create_task(create(name))
        assert len(refused) == 1
        assert "pick a template with runtime docker" in refused[0]
        await it.service.create(BOB, NewWorkspace(name="two", template="go-docker", start=False))


async def test_a_change_is_conditional_on_the_revision() -> None:
    """With a revision that is not the current one nothing changes; without one it is applied to what is there."""
    async with stage() as it:
        made = await it.create(start=False)
        with pytest.raises(StaleRevision, match="the revision is 1 by now, not 7"):
            await it.service.start(ADA, made.id, expected=7)
        renamed = await it.service.rename(ADA, made.id, "two", expected=made.revision)
        assert renamed.revision == 2
        with pytest.raises(StaleRevision):
            await it.service.rename(ADA, made.id, "three", expected=made.revision)


async def test_many_changes_at_once_are_all_kept() -> None:
    """Writers that race for one workspace try again; each change is there at the end."""
    async with stage() as it:
        made = await it.create()
        async with asyncio.TaskGroup() as group:
            group.create_task(it.service.rename(ADA, made.id, "two"))
            group.create_task(it.service.keep_awake(ADA, made.id, 1e12))
            group.create_task(it.service.update(ADA, made.id, Change(environment={"A": "1"})))
            group.create_task(it.service.update(ADA, made.id, Change(idle=IdleRule(after_s=60))))
        after = await it.until(made.id, Phase.running)
        assert (after.name, after.awake_until, after.spec.environment) == ("two", 1e12, {"A": "1"})
        assert after.spec.idle.after_s == 60


async def test_asking_for_what_is_so_changes_nothing() -> None:
    """Start of a running and stop of a stopped workspace are no events and no revisions."""
    async with stage() as it:
        made = await it.create()
        ran = await it.until(made.id, Phase.running)
        assert await it.service.start(ADA, made.id) == ran
        await it.service.stop(ADA, made.id)
        stopped = await it.until(made.id, Phase.stopped)
        assert await it.service.stop(ADA, made.id) == stopped


async def test_what_is_being_deleted_cannot_be_changed() -> None:
    """Until its files are gone it is visible, and nothing can be asked of it."""
    async with stage() as it:
        made = await it.create(start=False)
        # The reconciler would remove it before the next line.
        it.service._wake = lambda _: None
        await it.service.delete(ADA, made.id)
        with pytest.raises(Conflict, match="being deleted"):
            await it.service.start(ADA, made.id)
        with pytest.raises(NotFound):
            await it.service.find(ADA, "ada", "one")


async def test_a_workspace_moves_to_a_newer_version_at_its_next_start() -> None:
    """It remembers the version that it was made from; what runs goes on with the one that it was started with."""
    history = MemoryTemplates()
    versions = {n: Template(name="light", version=n, editor=Editor(command=(f"v{n}",))) for n in (1, 2, 3)}
    versions[3] = versions[3].model_copy(update={"runtime": "docker", "image": "x"})

    class Files(Catalogue):
        newest_is = 1

        async def get(self, name: str, version: int | None = None) -> Template:
            if version is None and name == "light":
                return versions[self.newest_is]
            return await super().get(name, version)

    catalogue = Files(None, history)
    async with stage(templates=catalogue) as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        catalogue.newest_is = 2
        moved = await it.service.move_to_template(ADA, made.id)
        assert (moved.spec.template_version, moved.template_version) == (2, 1)
        await it.service.restart(ADA, made.id)
        again = await it.until(made.id, lambda w: w.generation == 2 and w.phase is Phase.running)
        assert again.template_version == 2
        await it.service.move_to_template(ADA, made.id, 1)
        await it.reconciler.suspend()
        assert (await it.until(made.id, Phase.stopped)).template_version == 1
        await it.service.move_to_template(ADA, made.id, 2)
        assert (await it.service.move_to_template(ADA, made.id, 1)).spec.template_version == 1
        with pytest.raises(InvalidInput, match="version 9"):
            await it.service.move_to_template(ADA, made.id, 9)
        catalogue.newest_is = 3
        with pytest.raises(Conflict, match="uses runtime docker"):
            await it.service.move_to_template(ADA, made.id)


async def test_events_can_be_followed_by_those_who_may_see_them() -> None:
    """A follower of everything hears of one's own workspaces only."""
    async with stage() as it:
        mine = await it.create(start=False)
        theirs = await it.service.create(BOB, NewWorkspace(name="two", template="go-docker", start=False))
        async with asyncio.timeout(10), aclosing(it.service.follow(BOB, None)) as events:
            assert (await anext(events)).workspace == theirs.id
        assert [e.text for e in await it.service.events(ADA, mine.id)] == ["created from light version 1"]


async def test_output_and_commands_pass_through() -> None:
    """The owner reads the output of a workspace and runs commands in it while it runs."""
    async with stage() as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        assert [data async for _, data in await it.service.logs(ADA, made.id)] == [b"started generation 1\n"]
        session = await it.service.exec(ADA, made.id, ["cat"], {}, tty=False)
        await session.write(b"hello")
        await session.write(b"")
        assert [item async for item in session.output()] == [(Channel.stdout, b"hello")]
        assert await session.wait() == 0
        with pytest.raises(InvalidInput, match="command"):
            await it.service.exec(ADA, made.id, [], {}, tty=False)
        with pytest.raises(InvalidInput, match="NUL"):
            await it.service.exec(ADA, made.id, ["cat", "a\0b"], {}, tty=False)
        await it.service.stop(ADA, made.id)
        await it.until(made.id, Phase.stopped)
        with pytest.raises(Conflict, match="start it first"):
            await it.service.exec(ADA, made.id, ["cat"], {}, tty=False)


async def test_when_it_would_stop_is_told() -> None:
    """A running workspace says when it would stop and why; one that does not run says that."""
    async with stage() as it:
        made = await it.create()
        assert it.service.idle(made).why == "it does not run"
        ran = await it.until(made.id, Phase.running)
        it.activity[made.id] = Activity(started_at=100.0, input_at=200.0)
        status = it.service.idle(ran)
        assert (status.stops_at, status.why) == (2000.0, "30 min after the last input")


async def test_only_ports_of_running_workspaces_are_listeners() -> None:
    """A port of nobody, of a stopped workspace and of an unknown one is None."""
    async with stage() as it:
        made = await it.create()
        await it.until(made.id, Phase.running)
        it.runtime.world.listeners[made.id, 3000] = "127.0.0.1:3000"
        assert await it.service.listener(made.id, 3000) == "127.0.0.1:3000"
        assert await it.service.listener(made.id, 3001) is None
        assert await it.service.listener("nobody0000", 3000) is None


async def test_a_page_has_a_limit() -> None:
    """A page of nothing or of everything is refused."""
    async with stage() as it:
        for limit in (0, 501):
            with pytest.raises(InvalidInput, match="limit must be 1 to 500"):
                await it.service.page(ADA, limit=limit)
