"""The process runtime with everything killed that can be: keepers, editors, the server, all at once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from mooring import settings
from mooring.control.tasks import Tasks
from mooring.errors import Conflict, Misconfigured, Unavailable
from mooring.model.template import Editor, Template
from mooring.model.workspace import Phase, Workspace
from mooring.settings import Home, Listen
from mooring.workspaces.processes.keepers import Link, is_kept, start_keeper
from mooring.workspaces.processes.places import Folders
from mooring.workspaces.processes.runtime import ProcessRuntime
from support.runtime_process import ProcessHarness, account, harness
from support.runtimes import WITHIN_S, answered, stopped, until, workspace


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    """A home of its own, with cgroups."""
    async with harness(tmp_path) as opened:
        yield opened


async def gone(pid: int) -> None:
    """Wait for the end of a process."""
    async with asyncio.timeout(WITHIN_S):
        while is_alive(pid):
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether it exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def keeper_pid(world: ProcessHarness, wanted: Workspace) -> int:
    """The keeper that last wrote its state."""
    return int(world.state(wanted)["keeper"][0])


async def run(runtime: ProcessRuntime, wanted: Workspace, script: str) -> str:
    """What a shell says in the workspace; it must end with 0."""
    session = await runtime.exec(wanted.id, ["sh", "-c", script], environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S):
        said = [data async for _, data in session.output()]
        assert await session.wait() == 0, said
    return b"".join(said).decode()


async def asked_to_end(runtime: ProcessRuntime, wanted: Workspace) -> None:
    """Wait until a stop waits for the keeper's end."""
    async with asyncio.timeout(WITHIN_S):
        while runtime._links[wanted.id]._end_by is None:
            await asyncio.sleep(0.01)


async def test_code_server_answers_on_its_socket(world: ProcessHarness) -> None:
    """The real editor starts on its unix socket below a 0700 folder and answers its health path."""
    world.editor = settings.cache() / "editor/bin/code-server"
    command = ("{editor}", "--socket", "{socket}", "--auth", "none", "--user-data-dir", "{data}", "{home}")
    wanted = workspace()
    async with world.engine() as runtime:
        seen = await runtime.apply(wanted, Template(name="code-server", editor=Editor(command=command)))
        assert seen.editor is not None
        assert seen.editor.unix == str(world.home.editor_socket(wanted.id))
        assert "status" in await answered(seen, "/healthz")
        assert world.place(wanted).stat().st_mode & 0o777 == 0o700


async def test_it_never_runs_as_root(tmp_path: Path) -> None:
    """Root without another user to become is refused, with what to do."""
    assert os.geteuid() == 0
    for nobody in (None, (0, 0)):
        with pytest.raises(Misconfigured, match="root"):
            ProcessRuntime(Home(tmp_path), Listen(), editor=tmp_path, run_as=nobody)


async def test_processes_are_the_users(world: ProcessHarness) -> None:
    """Keeper, editor and commands run as the workspace user, and its files are that user's."""
    wanted = workspace()
    user = account()
    assert user is not None
    async with world.engine() as runtime:
        await runtime.apply(wanted, world.template("healthy"))
        for pid in (keeper_pid(world, wanted), world.editor_pid(wanted)):
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"Uid:\t{user[0]}\t{user[0]}\t{user[0]}" in status
            assert "Groups:\t \n" in status or "Groups:\t\n" in status
        assert (await run(runtime, wanted, "id -u; id -G; touch mine")).split() == [str(user[0]), str(user[1])]
    assert (world.home.workspace(wanted.id) / "home/mine").stat().st_uid == user[0]


async def test_a_second_person_is_refused(world: ProcessHarness) -> None:
    """It serves one person; another may come once the first one's workspaces are deleted."""
    other = replace(workspace(2), owner="bob")
    async with world.engine() as runtime:
        await runtime.apply(workspace(1), world.template("healthy"))
        with pytest.raises(Misconfigured, match="ada"):
            await runtime.apply(other, world.template("healthy"))
        assert world.alive(other) == 0
        await runtime.delete(workspace(1).id)
        assert (await runtime.apply(other, world.template("healthy"))).phase is Phase.starting


async def test_what_a_power_cut_left_of_the_owner_is_nobody(world: ProcessHarness) -> None:
    """An empty file, as a disk that failed before it was flushed leaves it, refuses nobody for good."""
    async with world.engine() as runtime:
        await runtime.apply(workspace(1), world.template("healthy"))
        (world.home.workspaces / "owner").write_text("")
        assert (await runtime.apply(workspace(2), world.template("healthy"))).phase is Phase.starting
    assert (world.home.workspaces / "owner").read_text() == "ada"


async def test_a_killed_keeper_costs_no_editor(world: ProcessHarness) -> None:
    """A new keeper takes over the running editor, notices its end later, and a stop still reaches everything."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        pid = await answered(await runtime.apply(wanted, template))
        await run(runtime, wanted, "setsid sleep 1000 >/dev/null 2>&1 &")
        first = keeper_pid(world, wanted)
        os.kill(first, signal.SIGKILL)
        await until(runtime, wanted, lambda seen: keeper_pid(world, wanted) != first and not seen.reason)
        again = await runtime.apply(wanted, template)
        assert await answered(again) == pid
        assert again.restarts == 0
        os.kill(int(pid), signal.SIGKILL)
        seen = await until(runtime, wanted, lambda seen: seen.restarts == 1 and not seen.reason)
        assert await answered(seen) != pid
        await runtime.apply(stopped(wanted), template)
        assert world.alive(wanted) == 0


async def test_a_killed_keeper_leaves_what_it_told(world: ProcessHarness) -> None:
    """The clone that failed is still told by the keeper that takes over the editor, and by the next server."""
    wanted = workspace(repository="https://127.0.0.1:9/nobody/nothing.git")
    async with world.engine() as runtime:
        pid = await answered(await runtime.apply(wanted, world.template("healthy")))
        told = await until(runtime, wanted, lambda seen: bool(seen.notices))
        first = keeper_pid(world, wanted)
        os.kill(first, signal.SIGKILL)
        seen = await until(runtime, wanted, lambda seen: keeper_pid(world, wanted) != first and not seen.reason)
        assert seen.notices == told.notices
        assert world.editor_pid(wanted) == int(pid)
    async with world.engine() as runtime:
        assert (await until(runtime, wanted, lambda _: True)).notices == told.notices


async def test_keeper_and_editor_killed_together_start_again(world: ProcessHarness) -> None:
    """With nothing left to take over, the workspace starts cleanly under a new keeper."""
    wanted = workspace()
    async with world.engine() as runtime:
        pid = await answered(await runtime.apply(wanted, world.template("healthy")))
        first = keeper_pid(world, wanted)
        os.kill(first, signal.SIGKILL)
        os.kill(int(pid), signal.SIGKILL)
        seen = await until(runtime, wanted, lambda seen: keeper_pid(world, wanted) != first and not seen.reason)
        assert await answered(seen) != pid


SERVER = """
import asyncio, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from support.runtime_process import ProcessHarness
from support.runtimes import WITHIN_S, answered, get, stopped, until, workspace
from mooring.workspaces.processes.cgroups import CgroupRoot
async def main():
    world = ProcessHarness(Path(sys.argv[3]), CgroupRoot(1, eval(sys.argv[4])) if sys.argv[4] != "None" else None)
    async with world.engine() as runtime:
        await runtime.apply(workspace(), world.template("healthy"))
        print("applied", flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


async def killed_server(world: ProcessHarness) -> None:
    """A server of its own that starts the workspace and is then killed."""
    tests = Path(__file__).parents[1]
    folders = dict(world.root.folders) if world.root else None
    arguments = [str(tests), str(tests.parent / "src"), str(world.editor.parent), repr(folders)]
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, *arguments, stdout=subprocess.PIPE)
    assert server.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        assert await server.stdout.readline() == b"applied\n"
        server.kill()
        await server.wait()


async def test_a_killed_server_finds_its_workspaces_again(world: ProcessHarness) -> None:
    """After kill -9 of the server everything runs on, is seen by the next one at once, and obeys it."""
    wanted = workspace()
    await killed_server(world)
    pid = world.editor_pid(wanted)
    assert is_alive(pid)
    async with world.engine() as runtime:
        seen = await until(runtime, wanted, lambda _: True)
        assert (seen.phase, seen.generation) == (Phase.starting, 1)
        assert await answered(seen) == str(pid)
        again = await runtime.apply(wanted, world.template("healthy"))
        assert await answered(again) == str(pid)
        assert await run(runtime, wanted, "echo $MOORING_WORKSPACE") == f"{wanted.id}\n"
        await runtime.apply(stopped(wanted), world.template("healthy"))
        assert world.alive(wanted) == 0


async def test_an_editor_that_crashes_without_a_server_is_restarted(world: ProcessHarness) -> None:
    """The keeper restarts the editor, so a dead server does not matter; the next one knows of the crash."""
    wanted = workspace()
    await killed_server(world)
    pid = world.editor_pid(wanted)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        while world.state(wanted)["restarts"] != 1 or world.state(wanted)["editor"] is None:
            await asyncio.sleep(0.05)
    async with world.engine() as runtime:
        seen = await until(runtime, wanted, lambda _: True)
        assert seen.restarts == 1
        assert await answered(seen) != str(pid)


async def test_a_keeper_killed_without_a_server_costs_no_editor(world: ProcessHarness) -> None:
    """The next server says what it found, and takes the editor over as soon as the workspace is applied."""
    wanted = workspace()
    await killed_server(world)
    pid = world.editor_pid(wanted)
    keeper = keeper_pid(world, wanted)
    os.kill(keeper, signal.SIGKILL)
    await gone(keeper)
    async with world.engine() as runtime:
        seen = await until(runtime, wanted, lambda _: True)
        assert seen.phase is Phase.starting
        assert "killed" in seen.reason
        again = await runtime.apply(wanted, world.template("healthy"))
        assert await answered(again) == str(pid)
        assert again.reason == ""


async def test_everything_killed_at_once(world: ProcessHarness) -> None:
    """Server, keeper and editor gone: it is stopped with a reason, and starts again when it is applied."""
    wanted = workspace()
    await killed_server(world)
    pids = [keeper_pid(world, wanted), world.editor_pid(wanted)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await gone(pid)
    async with world.engine() as runtime:
        seen = await until(runtime, wanted, lambda _: True)
        assert seen.phase is Phase.stopped
        assert "killed" in seen.reason
        assert await answered(await runtime.apply(wanted, world.template("healthy")))


async def test_a_process_with_a_recycled_pid_is_never_touched(world: ProcessHarness) -> None:
    """A state file that names somebody else's process, start time included, makes nobody adopt or kill it."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(wanted, template)
    pids = [keeper_pid(world, wanted), world.editor_pid(wanted)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await gone(pid)
    state = world.state(wanted)
    bystander = subprocess.Popen(["sleep", "1000"])
    start = int(Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19])
    try:
        for forged in (start, start - 1):
            state |= {"keeper": [bystander.pid, forged], "editor": [bystander.pid, forged], "folders": []}
            (world.place(wanted) / "state.json").write_text(json.dumps(state))
            async with world.engine() as runtime:
                assert (await until(runtime, wanted, lambda _: True)).phase is Phase.stopped
                seen = await runtime.apply(wanted, template)
                assert await answered(seen) != str(bystander.pid)
                await runtime.apply(stopped(wanted), template)
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_state_file_that_is_no_state_is_no_obstacle(world: ProcessHarness) -> None:
    """An empty, a broken and a foreign state file count as none: the workspace starts and stops."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(wanted, template)
        for number, text in enumerate(("", "{", "[1]", '{"phase": "starting", "boot": "x", "generation": 1}'), 2):
            await runtime.apply(stopped(wanted), template)
            (world.place(wanted) / "state.json").write_text(text)
            seen = await runtime.apply(workspace(generation=number), template)
            assert await answered(seen)


async def test_a_keeper_that_cannot_begin_says_why(world: ProcessHarness) -> None:
    """The error of a start holds the keeper's last words, not only where to look for them."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(wanted, template)
        await runtime.apply(stopped(wanted), template)
        os.chown(world.place(wanted), 0, 0)
        with pytest.raises(Unavailable, match="Permission denied"):
            await runtime.apply(workspace(generation=2), template)
        os.chown(world.place(wanted), *(account() or ()))
        assert await answered(await runtime.apply(workspace(generation=2), template))


async def test_a_start_that_came_to_nothing_leaves_no_cgroup(world: ProcessHarness) -> None:
    """Its keeper ended before it wrote a state: a stop removes what was made for it all the same."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(stopped(wanted), template)
        Folders(world.home, account()).make(wanted.id)
        os.chown(world.place(wanted), 0, 0)
        with pytest.raises(Unavailable, match="Permission denied"):
            await runtime.apply(wanted, template)
        assert world.root is not None
        made = [Path(folder) / wanted.id for folder in world.root.folders.values()]
        assert all(folder.exists() for folder in made)
        await runtime.apply(stopped(wanted), template)
        assert not any(folder.exists() for folder in made)


async def test_a_keeper_without_an_order_goes_away(world: ProcessHarness) -> None:
    """A server that died between starting a keeper and telling it what to keep leaves nothing in the way."""
    wanted = workspace()
    async with world.engine() as runtime:
        await runtime.apply(wanted, world.template("healthy"))
        await runtime.apply(stopped(wanted), world.template("healthy"))
        pid = start_keeper(world.place(wanted), wanted.id, account())
        link = await Link.connect(world.place(wanted), wanted.id)
        assert is_kept(world.place(wanted))
        async with Tasks("test") as tasks:
            link.follow(tasks, lambda _: None, lambda _: None)
            link.close()
            async with asyncio.timeout(WITHIN_S):
                await link.ended.wait()
                await asyncio.to_thread(os.waitpid, pid, 0)
        assert await answered(await runtime.apply(workspace(generation=2), world.template("healthy")))


async def test_a_keeper_that_hangs_does_not_stop_a_stop(world: ProcessHarness) -> None:
    """A keeper that does not answer is killed by a stop, which then ends everything without it."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, template))
    os.kill(keeper_pid(world, wanted), signal.SIGSTOP)
    async with world.engine() as runtime:
        assert (await runtime.apply(stopped(wanted), template)).phase is Phase.stopped
        assert world.alive(wanted) == 0


@pytest.mark.parametrize("said", ["starting", "stopped"])
async def test_a_stop_that_is_made_anew_gives_a_keeper_no_more_time(
    world: ProcessHarness, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Cut off while it waits for a keeper that hangs, and asked for again: the wait goes on, it does not begin anew."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime, Tasks("test") as tasks:
        await answered(await runtime.apply(wanted, template))
        os.kill(keeper_pid(world, wanted), signal.SIGSTOP)
        runtime._links[wanted.id].state["phase"] = said
        monkeypatch.setattr("mooring.workspaces.processes.runtime._END_WITHIN_S", 2.0)
        first = tasks.spawn("stop", runtime.apply(stopped(wanted), template))
        await asked_to_end(runtime, wanted)
        first.cancel()
        await asyncio.wait([first])
        monkeypatch.setattr("mooring.workspaces.processes.runtime._END_WITHIN_S", 2 * WITHIN_S)
        async with asyncio.timeout(WITHIN_S):
            assert (await runtime.apply(stopped(wanted), template)).phase is Phase.stopped
        assert world.alive(wanted) == 0


@pytest.mark.parametrize("lost", ["state.json", ""])
async def test_a_stop_needs_no_state_file(world: ProcessHarness, lost: str) -> None:
    """A full disk kept it from being written, and the keeper was killed: what is in the cgroups ends all the same."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, template))
    keeper = keeper_pid(world, wanted)
    os.kill(keeper, signal.SIGKILL)
    await gone(keeper)
    subprocess.run(["/bin/rm", "-r", world.place(wanted) / lost], check=True)
    async with world.engine() as runtime:
        assert (await runtime.apply(stopped(wanted), template)).phase is Phase.stopped
        assert world.alive(wanted) == 0


@pytest.mark.parametrize("end", ["hangs", "is killed"])
@pytest.mark.parametrize("cgroups", [True, False])
async def test_a_keeper_that_hangs_is_known_without_its_state_file(
    world: ProcessHarness, monkeypatch: pytest.MonkeyPatch, end: str, *, cgroups: bool
) -> None:
    """A full disk kept it from being written, and the keeper does not end: what it told names it and what it left."""
    monkeypatch.setattr("mooring.workspaces.processes.runtime._END_WITHIN_S", 5.0 if end == "hangs" else WITHIN_S)
    wanted, template = workspace(generation=3), world.template("healthy")
    world.root = world.root if cgroups else None
    async with world.engine() as runtime, Tasks("test") as tasks:
        await answered(await runtime.apply(wanted, template))
        keeper = keeper_pid(world, wanted)
        os.kill(keeper, signal.SIGSTOP)
        (world.place(wanted) / "state.json").unlink()
        stopping = tasks.spawn("stop", runtime.apply(stopped(wanted), template))
        if end == "is killed":
            await asked_to_end(runtime, wanted)
            os.kill(keeper, signal.SIGKILL)
        await stopping
        assert world.alive(wanted) == 0
        assert world.state(wanted)["generation"] == 3


async def test_a_keeper_that_hangs_before_its_order_is_not_called_stopped(world: ProcessHarness) -> None:
    """Nobody knows its pid and it may have begun: the stop fails until it answers or is gone."""
    wanted, template = workspace(), world.template("healthy")
    Folders(world.home, account()).make(wanted.id)
    pid = start_keeper(world.place(wanted), wanted.id, account())
    os.kill(pid, signal.SIGSTOP)
    try:
        async with world.engine() as runtime:
            with pytest.raises(Unavailable, match="keeper"):
                await runtime.apply(stopped(wanted), template)
            os.kill(pid, signal.SIGCONT)
            async with asyncio.timeout(WITHIN_S):
                await asyncio.to_thread(os.waitpid, pid, 0)
            assert (await runtime.apply(stopped(wanted), template)).phase is Phase.stopped
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_what_left_everything_behind_ends_with_the_workspace(world: ProcessHarness) -> None:
    """A process without the workspace's environment, session, parent and keeper is still in its cgroup."""
    wanted, template = workspace(), world.template("healthy")
    assert world.root is not None
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, template))
        said = await run(runtime, wanted, "(setsid env -i sleep 1000 >/dev/null 2>&1 & echo $!)")
        os.kill(keeper_pid(world, wanted), signal.SIGKILL)
        await runtime.apply(stopped(wanted), template)
        assert not is_alive(int(said))


async def test_a_stop_works_without_cgroups_and_keeper(world: ProcessHarness) -> None:
    """Where there are no cgroups, orphans of a killed keeper are known by their environment."""
    wanted, template = workspace(), world.template("healthy")
    world.root = None
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, template))
        await run(runtime, wanted, "(setsid sh -c 'sleep 1000; true' >/dev/null 2>&1 &)")
        os.kill(keeper_pid(world, wanted), signal.SIGKILL)
    async with world.engine() as runtime:
        await runtime.apply(stopped(wanted), template)
        assert world.alive(wanted) == 0


async def test_nothing_of_the_servers_environment_leaks(world: ProcessHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The editor gets a clean base and its own variables; no variable is in any argument."""
    monkeypatch.setenv("SERVER_SECRET", "hush")
    wanted = workspace(environment={"API_KEY": "s3cret"})
    async with world.engine() as runtime:
        await runtime.apply(wanted, world.template("healthy"))
        said = await run(runtime, wanted, "env")
    assert "hush" not in said
    assert "API_KEY=s3cret" in said.splitlines()
    names = {line.partition("=")[0] for line in said.splitlines()}
    assert names >= {"HOME", "PATH", "USER", "SHELL", "LANG", "TERM"}
    for pid in (keeper_pid(world, wanted), world.editor_pid(wanted)):
        assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    kept = [path for path in world.place(wanted).iterdir() if path.is_file() and b"s3cret" in path.read_bytes()]
    assert not kept


async def test_a_stale_socket_is_no_obstacle(world: ProcessHarness) -> None:
    """A socket that a killed editor left is removed before the next start."""
    wanted = workspace()
    async with world.engine() as runtime:
        first = await answered(await runtime.apply(wanted, world.template("healthy")))
        os.kill(int(first), signal.SIGKILL)
        seen = await until(runtime, wanted, lambda seen: seen.restarts == 1 and not seen.reason)
        assert await answered(seen) != first


async def test_commands_end_with_the_workspace(world: ProcessHarness) -> None:
    """A stop ends a running command, whose caller learns the signal."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(wanted, template)
        session = await runtime.exec(wanted.id, ["sleep", "1000"], environment={}, tty=False)
        await runtime.apply(stopped(wanted), template)
        async with asyncio.timeout(WITHIN_S):
            assert await session.wait() > 128
        await session.close()


async def test_a_command_that_does_not_exist_is_a_conflict(world: ProcessHarness) -> None:
    """The error names the program."""
    wanted = workspace()
    async with world.engine() as runtime:
        await runtime.apply(wanted, world.template("healthy"))
        with pytest.raises(Conflict, match="no-such-program"):
            await runtime.exec(wanted.id, ["no-such-program"], environment={}, tty=False)


async def test_keepers_are_small(world: ProcessHarness) -> None:
    """A keeper's own share of memory is a few megabytes: 200 of them fit beside their editors."""
    wanted = workspace()
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, world.template("healthy")))
        text = Path(f"/proc/{keeper_pid(world, wanted)}/smaps_rollup").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("Pss:"))
        assert int(line.split()[1]) < 8 * 1024


async def test_nonsense_on_its_socket_does_not_end_a_keeper(world: ProcessHarness) -> None:
    """A program of the workspace that connects to the keeper and talks nonsense is hung up on."""
    wanted = workspace()
    async with world.engine() as runtime:
        pid = await answered(await runtime.apply(wanted, world.template("healthy")))
        keeper = keeper_pid(world, wanted)
        session = await runtime.exec(wanted.id, ["sleep", "1000"], environment={}, tty=False)
        nonsense = (
            b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"{}\n", b'{"op":"signal"}\n', b'{"op":"keep","order":{}}\n',
            b'{"op":"exec","key":"1","argv":["true"],"environment":{},"tty":false}\n', b"[" * 100_000 + b"\n",
            b'{"op":"signal","key":"1","signal":1099511627776}\n', b'{"op":"signal","key":"1","signal":-1}\n',
        )  # fmt: skip
        for said in nonsense:
            reader, writer = await asyncio.open_unix_connection(world.place(wanted) / "keeper.sock")
            writer.write(said)
            writer.write_eof()
            async with asyncio.timeout(WITHIN_S):
                await reader.read()
            writer.close()
            await writer.wait_closed()
        assert await answered(await runtime.apply(wanted, world.template("healthy"))) == pid
        assert keeper_pid(world, wanted) == keeper
        await session.close()


async def test_an_editor_that_ends_with_a_high_status_is_one_that_ends(world: ProcessHarness) -> None:
    """255, which -1 becomes, is no signal: it counts as any other death, under one keeper, until the fifth."""
    template = Template(name="light", editor=Editor(command=("sh", "-c", "exit 255", "{socket}")))
    async with world.engine() as runtime:
        await runtime.apply(workspace(), template)
        keeper = keeper_pid(world, workspace())
        seen = await until(runtime, workspace(), lambda seen: seen.phase is Phase.failed)
        assert "ended 5 times in 10 minutes; the last one ended with exit status 255" in seen.reason
        assert keeper_pid(world, workspace()) == keeper


async def test_a_delete_reaches_the_deepest_folder(world: ProcessHarness) -> None:
    """Folders in folders by the thousand, and such as nobody may open, go with their workspace."""
    wanted = workspace()
    nested = "import os; [(os.mkdir('d'), os.chdir('d')) for _ in range(3000)]; os.mkdir('e'); os.mkdir('e/f')"
    async with world.engine() as runtime:
        await runtime.apply(wanted, world.template("healthy"))
        await run(runtime, wanted, f"python3 -c \"{nested}; os.chmod('e/f', 0); os.chmod('e', 0)\"")
        await runtime.delete(wanted.id)
        assert not world.home.workspace(wanted.id).exists()


async def test_a_stop_whose_sweep_is_killed_is_none(world: ProcessHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keeper killed, and what ends the rest without it killed too, nobody says that it is stopped."""
    monkeypatch.setattr("mooring.workspaces.processes.orders.GRACE_S", 2.0)
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime, Tasks("test") as tasks:
        await answered(await runtime.apply(wanted, template))
        await run(runtime, wanted, "(trap '' TERM; setsid sleep 1000 >/dev/null 2>&1 &)")
        first = keeper_pid(world, wanted)
        os.kill(first, signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        stopping = tasks.spawn("stop", runtime.apply(stopped(wanted), template))
        async with asyncio.timeout(WITHIN_S):
            while keeper_pid(world, wanted) == first or world.state(wanted)["phase"] != "stopping":
                await asyncio.sleep(0.01)
        os.kill(keeper_pid(world, wanted), signal.SIGKILL)
        with pytest.raises(Unavailable):
            await stopping
        assert world.alive(wanted) > 0
        assert (await runtime.apply(stopped(wanted), template)).phase is Phase.stopped
        assert world.alive(wanted) == 0


async def test_a_shell_in_a_terminal_does_not_hold_up_a_stop(world: ProcessHarness) -> None:
    """An interactive shell ignores a polite signal; the hang-up of its terminal ends it long before the kill."""
    wanted, template = workspace(), world.template("healthy")
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, template))
        session = await runtime.exec(wanted.id, ["bash", "-i"], environment={}, tty=True)
        async with aclosing(session.output()) as output:
            await anext(output)
        await runtime.apply(stopped(wanted), template)
        assert await session.wait() == 128 + signal.SIGHUP
        await session.close()
