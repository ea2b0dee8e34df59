"""The workspaces' tokens for the module proxy: who has which, and what becomes of them."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.errors import Forbidden, Misconfigured, Unauthenticated, Unavailable
from mooring.goproxy import access
from mooring.goproxy.access import Access, Subject
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.server.files import make_folders, modules_key
from mooring.server.workspace_modules import Environment, WorkspaceModules
from mooring.settings import Home
from mooring.workspaces.memory import MemoryStore
from mooring.workspaces.ports import Page
from mooring.workspaces.requests import begun
from support.waiting import WITHIN_S

TEMPLATE = Template(name="light", editor=Editor(command=("x",)))
ALLOW = """
private = ["git.example.com"]
[[allow]]
users = ["ann"]
modules = ["git.example.com/team"]
[[allow]]
users = ["*"]
modules = ["git.example.com/all"]
"""


@pytest.fixture
def home() -> Iterator[Home]:
    """A home with its folders, in a short folder: sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="mrg-", dir="/tmp") as folder:
        made = Home(Path(folder))
        make_folders(made)
        yield made


class World:
    """Workspaces in memory, and what keeps their tokens."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.store = MemoryStore()
        self.restart()

    def restart(self) -> None:
        """As after a kill: nothing is remembered but what is on the disk."""
        self.modules = WorkspaceModules(self.home, self.store, SystemClock())
        self.environment = self.modules.seen_from("http://localhost:1/goproxy")

    async def create(self, number: int, owner: str = "ann", *, runs: bool = True) -> Workspace:
        """A workspace that is in the database."""
        name = f"demo{number}"
        spec = Spec(template="light", template_version=1)
        made = Workspace(f"{number:010}", owner, name, spec, Desired.stopped, Phase.stopped, created_at=0.0)
        return await self.store.create(begun(made) if runs else made)

    async def token(self, workspace: Workspace, environment: Environment | None = None) -> str:
        """The token in its environment."""
        found = await (environment or self.environment).environment(workspace, TEMPLATE)
        return found["GOPROXY"].rpartition("/t-")[2]

    def subject(self, token: str) -> Subject:
        """Whose the role says that it is."""
        return Access(self.home.modules_tokens).subject(b"", token)


@pytest.fixture
def world(home: Home, monkeypatch: pytest.MonkeyPatch) -> World:
    """An installation without workspaces, which looks often."""
    monkeypatch.setattr("mooring.server.workspace_modules._LOOK_S", 0.05)
    return World(home)


async def test_each_start_has_a_token_with_its_owners_modules(world: World) -> None:
    """The token names the workspace, and opens what its owner may have; the checksum database is the notary."""
    world.home.modules_settings.write_text(ALLOW)
    ann, bob = await world.create(1), await world.create(2, "bob")
    found = await world.environment.environment(ann, TEMPLATE)
    assert sorted(found) == ["GOPROXY", "GOSUMDB"]
    assert found["GOPROXY"].startswith("http://localhost:1/goproxy/t-")
    assert found["GOSUMDB"].startswith("sum.mooring.internal+")
    whose = world.subject(await world.token(ann))
    assert (whose.name, whose.private) == ("workspace:ann/demo1", ("git.example.com/team", "git.example.com/all"))
    bobs = world.subject(await world.token(bob))
    bobs.check("git.example.com/all/x")
    with pytest.raises(Forbidden, match="workspace:bob/demo2 may not have it"):
        bobs.check("git.example.com/team/x")


async def test_nothing_private_is_for_anybody_by_default(world: World) -> None:
    """What no rule names is for nobody."""
    world.home.modules_settings.write_text('private = ["git.example.com"]\n')
    whose = world.subject(await world.token(await world.create(1)))
    with pytest.raises(Forbidden):
        whose.check("git.example.com/team/x")


async def test_a_token_ends_with_a_stop_a_restart_and_a_deletion(world: World) -> None:
    """The file holds a line for each workspace that is to run, and no other."""
    one, two = await world.create(1), await world.create(2)
    await world.create(3, runs=False)
    first, other = await world.token(one), await world.token(two)
    one = await world.store.update(begun(one), expected=one.revision)
    await world.store.update(replace(two, desired=Desired.deleted), expected=two.revision)
    second = await world.token(one)
    assert world.subject(second).name == "workspace:ann/demo1"
    for gone in (first, other):
        with pytest.raises(Unauthenticated):
            world.subject(gone)
    await world.store.update(replace(one, desired=Desired.stopped), expected=one.revision)
    await world.modules.admit()
    assert world.home.modules_tokens.read_text() == ""


async def test_many_starts_at_once_lose_nothing(world: World) -> None:
    """Every one of them finds its token in the file when it begins."""
    workspaces = [await world.create(number) for number in range(60)]
    async with asyncio.TaskGroup() as group:
        tokens = [group.create_task(world.token(workspace)) for workspace in workspaces]
    assert sorted(world.subject(token.result()).name for token in tokens) == sorted(
        f"workspace:ann/{workspace.name}" for workspace in workspaces
    )


async def test_a_kill_at_any_moment_leaves_no_orphan(world: World) -> None:
    """A new server makes the same tokens for what runs, and takes away those of what does not exist."""
    one = await world.create(1)
    before = await world.token(one)
    access.replace_workspaces(
        world.home.modules_tokens, {"left-over": Subject("workspace:ann/gone"), before: Subject("workspace:ann/demo1")}
    )
    (world.home.modules / ".tokens.new").write_text("half of a li")
    world.restart()
    assert await world.token(one) == before
    assert world.subject(before).name == "workspace:ann/demo1"
    with pytest.raises(Unauthenticated):
        world.subject("left-over")


async def test_tokens_of_people_stay(world: World) -> None:
    """Those made on the command line are nobody's business here, whenever they are made."""
    machine = access.make(world.home.modules_tokens, "ci", ("*",))
    one = await world.create(1)
    await world.token(one)
    later = access.make(world.home.modules_tokens, "ann", ())
    await world.store.update(replace(one, desired=Desired.stopped), expected=one.revision)
    await world.modules.admit()
    assert world.subject(machine).owns_all
    assert world.subject(later).name == "ann"
    assert len(world.home.modules_tokens.read_text().splitlines()) == 2


async def test_new_settings_and_a_lost_file_are_followed(world: World) -> None:
    """Within seconds, with no workspace started; a file with a mistake leaves what was allowed."""
    world.home.modules_settings.write_text(ALLOW)
    token = await world.token(await world.create(1))
    async with Tasks("test") as tasks:
        tasks.forever("modules", world.modules.run())

        async def becomes(*patterns: str) -> None:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    try:
                        if world.subject(token).private == patterns:
                            return
                    except Unauthenticated:
                        pass
                    await asyncio.sleep(0.05)

        world.home.modules_settings.write_text('[[allow]]\nusers = ["ann"]\nmodules = ["other.example"]\n')
        await becomes("other.example")
        world.home.modules_tokens.unlink()
        world.home.modules_settings.write_text("allow = 3\n")
        await becomes("other.example")
        world.home.modules_settings.unlink()
        await becomes()


class AwayStore(MemoryStore):
    """A database that is away while `away`; `asked` counts who found it so."""

    away = False
    asked = 0

    async def page(self, *, owner: str | None, after: str | None, limit: int) -> Page:
        if self.away:
            self.asked += 1
            raise Unavailable("the database does not answer")
        return await super().page(owner=owner, after=after, limit=limit)


async def test_a_token_that_could_not_be_taken_back_is_taken_back_soon(world: World) -> None:
    """A database that was away at a workspace's stop is asked again, and not when the next one changes."""
    world.store = store = AwayStore()
    world.restart()
    one = await world.create(1)
    await world.token(one)
    async with asyncio.timeout(WITHIN_S), Tasks("test") as tasks:
        tasks.forever("modules", world.modules.run())
        await store.update(replace(one, desired=Desired.stopped), expected=one.revision)
        store.away = True
        world.modules.wake()
        while not store.asked:
            await asyncio.sleep(0.01)
        store.away = False
        while world.home.modules_tokens.read_text():
            await asyncio.sleep(0.01)


async def test_an_own_proxy_goes_first(world: World) -> None:
    """Where the owner or the template says where modules come from, nothing of ours is added."""
    one = await world.create(1)
    spec = one.spec.model_copy(update={"environment": {"GOPROXY": "https://proxy.example"}})
    assert await world.environment.environment(replace(one, spec=spec), TEMPLATE) == {}
    given = TEMPLATE.model_copy(update={"environment": {"GOPROXY": "off"}})
    assert await world.environment.environment(one, given) == {}


async def test_switched_off_there_is_nothing(world: World) -> None:
    """No variable, no token, no watch."""
    world.home.modules_settings.write_text("enabled = false\n")
    assert await world.environment.environment(await world.create(1), TEMPLATE) == {}
    assert not world.modules.is_wanted
    assert not world.home.modules_tokens.exists() or world.home.modules_tokens.read_text() == ""


async def test_a_disk_that_does_not_take_the_tokens_stops_no_start(world: World) -> None:
    """The workspace starts with its environment, and its token counts once it could be written."""
    world.home.modules_tokens.mkdir()
    token = await world.token(await world.create(1))
    async with Tasks("test") as tasks:
        tasks.forever("modules", world.modules.run())
        await asyncio.sleep(0.1)
        world.home.modules_tokens.rmdir()
        async with asyncio.timeout(WITHIN_S):
            while not world.home.modules_tokens.exists():
                await asyncio.sleep(0.05)
    assert world.subject(token).name == "workspace:ann/demo1"


async def test_a_key_that_others_may_read_is_not_used(world: World) -> None:
    """A workspace starts without the proxy then, and no token is made from it."""
    one = await world.create(1)
    await world.token(one)
    (world.home.keys / "modules-key").chmod(0o644)
    assert await world.environment.environment(one, TEMPLATE) == {}


async def test_damaged_files_are_told_and_mended(world: World) -> None:
    """A key that is none is named; bytes that are no text in the file of tokens are lost, and the rest is not."""
    machine = access.make(world.home.modules_tokens, "ci", ())
    with world.home.modules_tokens.open("ab") as file:
        file.write(b"\xff\xfe\n")
    token = await world.token(await world.create(1))
    assert (world.subject(token).name, world.subject(machine).name) == ("workspace:ann/demo1", "ci")
    (world.home.keys / "modules-key").write_text("no number\n")
    with pytest.raises(Misconfigured, match="is damaged"):
        modules_key(world.home)
    await world.modules.admit()


async def test_the_file_is_for_its_user_alone(world: World) -> None:
    """It holds hashes and no token; nobody else may read it."""
    token = await world.token(await world.create(1))
    assert world.home.modules_tokens.stat().st_mode & 0o777 == 0o600
    assert token not in world.home.modules_tokens.read_text()
    assert os.listdir(world.home.modules).count(".tokens.new") == 0  # noqa: PTH208 - the names are all that counts
