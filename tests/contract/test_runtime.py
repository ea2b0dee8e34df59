"""What every runtime promises, on each that registered itself in `support/runtime_*.py`."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from mooring.errors import Conflict, Misconfigured
from mooring.model.workspace import Phase, Workspace
from mooring.workspaces.ports import Channel, Engine, Observation
from support import runtimes
from support.runtimes import WITHIN_S, Harness, stopped, until, workspace

REAL = [name for name in runtimes.names() if name != "memory"]
real_programs = pytest.mark.parametrize("harness", REAL, indirect=True)


@pytest.fixture(params=runtimes.names())
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """A runtime in a world of its own."""
    async with runtimes.open_harness(request.param)(tmp_path) as opened:
        yield opened


@pytest.fixture
async def engine(harness: Harness) -> AsyncIterator[Engine]:
    """An instance of that runtime."""
    async with harness.engine() as opened:
        yield opened


async def answered(harness: Harness, observation: Observation, path: str = "/healthz") -> str:
    """What the editor says, as soon as it does."""
    async with asyncio.timeout(WITHIN_S):
        while not (body := await harness.ask(observation, path)):
            await asyncio.sleep(0.05)
    return body


async def run(engine: Engine, workspace: Workspace, script: str, **environment: str) -> str:
    """What a shell says on its standard output in the workspace; it must end with 0."""
    session = await engine.exec(workspace.id, ["sh", "-c", script], environment=environment, tty=False)
    async with asyncio.timeout(WITHIN_S):
        said = [(channel, data) async for channel, data in session.output()]
        status = await session.wait()
    assert status == 0, said
    return b"".join(data for channel, data in said if channel is Channel.stdout).decode()


async def test_applying_starts_the_editor(harness: Harness, engine: Engine) -> None:
    """After apply the workspace's processes exist, and its editor answers where the observation says."""
    wanted = workspace()
    seen = await engine.apply(wanted, harness.template("healthy"))
    assert (seen.id, seen.generation, seen.phase) == (wanted.id, 1, Phase.starting)
    assert seen.editor is not None
    assert seen.ports is not None
    assert "alive" in await answered(harness, seen)


async def test_applying_again_changes_nothing(harness: Harness, engine: Engine) -> None:
    """The same workspace applied twice, also at once, is the same editor."""
    wanted, template = workspace(), harness.template("healthy")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(engine.apply(wanted, template))
        second = group.create_task(engine.apply(wanted, template))
    pid = await answered(harness, first.result(), "/pid")
    again = await engine.apply(replace(wanted, revision=7, phase=Phase.running), template)
    assert await answered(harness, again, "/pid") == await answered(harness, second.result(), "/pid") == pid


async def test_a_stop_leaves_no_process(harness: Harness, engine: Engine) -> None:
    """When apply returns from a stop, nothing of the workspace runs and the editor answers no more."""
    wanted, template = workspace(), harness.template("healthy")
    seen = await engine.apply(wanted, template)
    await answered(harness, seen)
    end = await engine.apply(stopped(wanted), template)
    assert end.phase is Phase.stopped
    assert harness.alive(wanted) == 0
    assert await harness.ask(seen, "/healthz") == ""


async def test_stopping_what_never_ran_is_no_error(harness: Harness, engine: Engine) -> None:
    """A stop of a workspace that the runtime has never seen is a stop."""
    end = await engine.apply(stopped(workspace()), harness.template("healthy"))
    assert end.phase is Phase.stopped


@real_programs
async def test_a_stop_reaches_every_process(harness: Harness, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that left its session, its parent and its terminal behind, and ignores signals, ends too."""
    monkeypatch.setattr("mooring.workspaces.processes.orders.GRACE_S", 1.0)
    wanted, template = workspace(), harness.template("healthy")
    await answered(harness, await engine.apply(wanted, template))
    await run(
        engine,
        wanted,
        "(trap '' TERM HUP INT; setsid sleep 1000 >/dev/null 2>&1 &) ; nohup sleep 1001 >/dev/null 2>&1 &",
    )
    assert harness.alive(wanted) >= 3
    await engine.apply(stopped(wanted), template)
    assert harness.alive(wanted) == 0


async def test_a_new_generation_is_a_new_start(harness: Harness, engine: Engine) -> None:
    """A higher generation ends the old editor and starts another."""
    template = harness.template("healthy")
    first = await answered(harness, await engine.apply(workspace(), template), "/pid")
    seen = await engine.apply(workspace(generation=2), template)
    assert seen.generation == 2
    assert await answered(harness, seen, "/pid") != first


async def test_a_killed_editor_is_started_again(harness: Harness, engine: Engine) -> None:
    """After a crash the same start goes on with another process, and the restart is counted."""
    wanted, template = workspace(), harness.template("healthy")
    seen = await engine.apply(wanted, template)
    first = await answered(harness, seen, "/pid")
    await harness.crash(engine, wanted)
    seen = await until(engine, wanted, lambda o: o.restarts == 1 and o.phase is Phase.starting)
    assert seen.generation == 1
    assert await answered(harness, seen, "/pid") != first


async def test_an_editor_that_always_crashes_fails(harness: Harness, engine: Engine) -> None:
    """Five crashes in a row end in failed, with the last lines of the output as the reason."""
    wanted = workspace()
    await engine.apply(wanted, harness.template("crashing"))
    seen = await until(engine, wanted, lambda o: o.phase is Phase.failed)
    assert "boom" in seen.reason
    assert harness.alive(wanted) == 0


async def test_a_failed_start_is_not_repeated_but_a_new_one_is_tried(harness: Harness, engine: Engine) -> None:
    """Applying the failed generation again leaves it failed; the next generation is a start like any other."""
    wanted = workspace()
    await engine.apply(wanted, harness.template("crashing"))
    await until(engine, wanted, lambda o: o.phase is Phase.failed)
    assert (await engine.apply(wanted, harness.template("crashing"))).phase is Phase.failed
    seen = await engine.apply(workspace(generation=2), harness.template("healthy"))
    assert "alive" in await answered(harness, seen)


async def test_what_a_retry_cannot_mend_is_misconfigured(harness: Harness, engine: Engine) -> None:
    """A program or an image that does not exist is an operator's matter, and nothing is left of the try."""
    with pytest.raises(Misconfigured):
        await engine.apply(workspace(), harness.template("missing"))
    assert harness.alive(workspace()) == 0


async def test_deleting_ends_it_and_is_repeatable(harness: Harness, engine: Engine) -> None:
    """Delete stops what runs, says so to the watch, and is no error when there is nothing."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    async with asyncio.timeout(WITHIN_S), aclosing(engine.watch()) as watch:
        assert (await anext(watch)).id == wanted.id
        await engine.delete(wanted.id)
        assert harness.alive(wanted) == 0
        async for seen in watch:
            if (seen.id, seen.phase) == (wanted.id, Phase.stopped):
                break
    await engine.delete(wanted.id)


async def test_workspaces_that_were_cost_no_memory(engine: Engine, harness: Harness) -> None:
    """What keeps the calls for one workspace apart ends with them: a server lives for years."""
    before = locks()
    for number in range(20):
        gone = workspace(number)
        await engine.apply(stopped(gone), harness.template("healthy"))
        await engine.delete(gone.id)
        await engine.apply(stopped(gone), harness.template("healthy"))
    assert locks() - before < 10


def locks() -> int:
    """How many there are in this process."""
    _ = gc.collect()
    return sum(type(found) is asyncio.Lock for found in gc.get_objects())


async def test_a_watch_begins_with_everything_and_tells_changes(harness: Harness, engine: Engine) -> None:
    """What exists comes first; then a start and a stop are told."""
    template = harness.template("healthy")
    one, two = workspace(1), workspace(2)
    await engine.apply(one, template)
    async with asyncio.timeout(WITHIN_S), aclosing(engine.watch()) as watch:
        assert (await anext(watch)).id == one.id
        await engine.apply(two, template)
        async for seen in watch:
            if (seen.id, seen.phase) == (two.id, Phase.starting):
                break
        await engine.apply(stopped(one), template)
        async for seen in watch:
            if (seen.id, seen.phase) == (one.id, Phase.stopped):
                break


async def test_another_instance_adopts_what_runs(harness: Harness) -> None:
    """A server that was killed finds its workspaces again: the same editor, the same generation, still watched."""
    wanted, template = workspace(generation=3), harness.template("healthy")
    async with harness.engine() as engine:
        pid = await answered(harness, await engine.apply(wanted, template), "/pid")
    async with harness.engine() as engine:
        found = await until(engine, wanted, lambda o: o.phase is Phase.starting)
        assert found.generation == 3
        seen = await engine.apply(wanted, template)
        assert await answered(harness, seen, "/pid") == await answered(harness, found, "/pid") == pid
        await harness.crash(engine, wanted)
        seen = await until(engine, wanted, lambda o: o.restarts == 1 and o.phase is Phase.starting)
        assert await answered(harness, seen, "/pid") != pid
        await engine.apply(stopped(wanted), template)
        assert harness.alive(wanted) == 0


async def test_usage_is_of_what_runs(harness: Harness, engine: Engine) -> None:
    """A running workspace has a usage, a stopped one has none."""
    wanted, template = workspace(), harness.template("healthy")
    assert await engine.usage(wanted.id) is None
    await answered(harness, await engine.apply(wanted, template))
    assert await engine.usage(wanted.id) is not None
    await engine.apply(stopped(wanted), template)
    assert await engine.usage(wanted.id) is None


@real_programs
async def test_usage_counts_work(harness: Harness, engine: Engine) -> None:
    """CPU grows with work done, memory is not nothing, and the commands are named."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    before = await engine.usage(wanted.id)
    await run(engine, wanted, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; (sleep 1000 &) >/dev/null 2>&1")
    assert before is not None
    async with asyncio.timeout(WITHIN_S):
        # The shell may end before its child has become sleep.
        while (after := await engine.usage(wanted.id)) is None or "sleep" not in after.commands:
            await asyncio.sleep(0.05)
    assert after.cpu_s > before.cpu_s
    assert after.memory_bytes > 0


async def test_the_output_resumes_where_a_reader_stopped(harness: Harness, engine: Engine) -> None:
    """Each chunk says the offset behind it; a reader that comes back with it gets neither gap nor repetition."""
    wanted, template = workspace(), harness.template("healthy")
    await answered(harness, await engine.apply(wanted, template))
    # An engine of containers hands output over in its own time, also that of an editor that answers already.
    await says(engine, wanted, b"\n")
    chunks = [chunk async for chunk in engine.read(wanted.id, offset=0, follow=False)]
    whole = b"".join(data for _, data in chunks)
    assert whole
    assert chunks[-1][0] == len(whole)
    rest = [data async for _, data in engine.read(wanted.id, offset=3, follow=False)]
    assert b"".join(rest)[: len(whole) - 3] == whole[3:]


@real_programs
async def test_the_output_can_be_followed(harness: Harness, engine: Engine) -> None:
    """A follower sees a line soon after the editor wrote it."""
    wanted = workspace()
    seen = await engine.apply(wanted, harness.template("healthy"))
    await answered(harness, seen)
    async with asyncio.TaskGroup() as group:
        group.create_task(says(engine, wanted, b"heureka"))
        await answered(harness, seen, "/say/heureka")


async def says(engine: Engine, wanted: Workspace, text: bytes) -> None:
    """Follow the output from its beginning until `text` has come."""
    read = b""
    async with asyncio.timeout(WITHIN_S), aclosing(engine.read(wanted.id, offset=0, follow=True)) as output:
        async for _, data in output:
            read += data
            if text in read:
                return
    raise AssertionError("the output ended")


@real_programs
async def test_files_outlive_a_stop(harness: Harness, engine: Engine) -> None:
    """What was written in the workspace's folder is there after stop and start, and gone after delete."""
    wanted, template = workspace(), harness.template("healthy")
    await answered(harness, await engine.apply(wanted, template))
    await run(engine, wanted, "echo kept > file")
    await engine.apply(stopped(wanted), template)
    again = workspace(generation=2)
    await answered(harness, await engine.apply(again, template))
    assert await run(engine, again, "cat file") == "kept\n"
    await engine.delete(wanted.id)
    await answered(harness, await engine.apply(workspace(generation=3), template))
    assert await run(engine, wanted, "ls file 2>/dev/null || echo none") == "none\n"


@real_programs
async def test_a_command_keeps_its_outputs_apart_and_has_a_status(harness: Harness, engine: Engine) -> None:
    """Standard output, standard error and the exit status of a command arrive as they were."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    script = "echo out; echo err >&2; exit 7"
    session = await engine.exec(wanted.id, ["sh", "-c", script], environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S):
        said = [item async for item in session.output()]
        assert await session.wait() == 7
    assert b"".join(data for channel, data in said if channel is Channel.stdout) == b"out\n"
    assert b"".join(data for channel, data in said if channel is Channel.stderr) == b"err\n"


@real_programs
async def test_a_command_reads_its_input_to_the_end(harness: Harness, engine: Engine) -> None:
    """What is written arrives whole, a megabyte too, and empty bytes are the end."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    session = await engine.exec(wanted.id, ["wc", "-c"], environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S):
        for _ in range(16):
            await session.write(b"x" * 65536)
        await session.write(b"")
        said = b"".join([data async for _, data in session.output()])
        assert await session.wait() == 0
    assert said.split() == [b"1048576"]


@real_programs
async def test_a_command_has_environment_and_folder(harness: Harness, engine: Engine) -> None:
    """A command runs in the workspace's folder, with the workspace's variables and those given with it."""
    wanted = workspace(environment={"COLOUR": "green $HOME; echo"})
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    said = await run(engine, wanted, 'echo "$COLOUR|$SIZE|$MOORING_WORKSPACE"; touch here; ls', SIZE="it's 4")
    assert said.splitlines()[0] == f"green $HOME; echo|it's 4|{wanted.id}"
    assert "here" in said.splitlines()


@real_programs
async def test_a_terminal_has_a_size_that_changes(harness: Harness, engine: Engine) -> None:
    """With a terminal, a command sees the size that was set."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    session = await engine.exec(wanted.id, ["sh", "-c", "read go; stty size; tty"], environment={}, tty=True)
    async with asyncio.timeout(WITHIN_S):
        await session.resize(120, 40)
        await session.write(b"\n")
        said = b"".join([data async for _, data in session.output()])
        assert await session.wait() == 0
    assert b"40 120" in said
    assert b"/dev/" in said


@real_programs
async def test_closing_ends_a_command(harness: Harness, engine: Engine) -> None:
    """A command whose caller hangs up is ended, one that ignores the hang-up too."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    before = harness.alive(wanted)
    script = "trap '' HUP; echo ready; sleep 1000"
    session = await engine.exec(wanted.id, ["sh", "-c", script], environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S):
        async with aclosing(session.output()) as output:
            await anext(output)
        await session.close()
        assert await session.wait() >= 128
        while harness.alive(wanted) > before:
            await asyncio.sleep(0.05)


async def test_no_command_runs_in_a_stopped_workspace(engine: Engine) -> None:
    """A command in a workspace that does not run is a conflict."""
    with pytest.raises(Conflict):
        await engine.exec(workspace().id, ["true"], environment={}, tty=False)


@real_programs
async def test_the_environment_reaches_the_editor(harness: Harness, engine: Engine) -> None:
    """The workspace's variables are the editor's."""
    seen = await engine.apply(workspace(environment={"COLOUR": "blue"}), harness.template("healthy"))
    assert await answered(harness, seen, "/environment/COLOUR") == "blue"


async def test_every_limit_is_reported(harness: Harness, engine: Engine) -> None:
    """Each limit that was asked for is named as in force or as not enforced here."""
    wanted = workspace(limits={"cpu": 1.0, "memory": "256Mi", "pids": 200, "storage": "100Mi"})
    seen = await engine.apply(wanted, harness.template("healthy"))
    assert set(seen.limited) | set(seen.unlimited) == {"cpu", "memory", "pids", "storage"}
    assert not set(seen.limited) & set(seen.unlimited)


@real_programs
async def test_only_its_own_listeners_are_its_ports(harness: Harness, engine: Engine) -> None:
    """A port is the workspace's only while one of its own processes listens there."""
    wanted = workspace()
    await answered(harness, await engine.apply(wanted, harness.template("healthy")))
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await engine.owns_port(wanted.id, port) is None
    script = f"python3 -m http.server --bind 127.0.0.1 {port} >/dev/null 2>&1 &"
    await run(engine, wanted, script)
    async with asyncio.timeout(WITHIN_S):
        while (address := await engine.owns_port(wanted.id, port)) is None:
            await asyncio.sleep(0.05)
    assert address.endswith(f":{port}")


@real_programs
async def test_a_failed_clone_is_a_notice_and_no_obstacle(harness: Harness, engine: Engine) -> None:
    """The editor runs although the repository cannot be cloned; the observation has git's last words and what to do."""
    wanted = workspace(repository="https://127.0.0.1:9/nobody/nothing.git")
    seen = await engine.apply(wanted, harness.template("healthy"))
    assert "alive" in await answered(harness, seen)
    seen = await until(engine, wanted, lambda o: bool(o.notices))
    failed, *words = seen.notices[0].splitlines()
    assert failed.startswith("git clone failed with exit status 128; to try again: mooring workspace restart;")
    assert words[-1].startswith("fatal: unable to access 'https://127.0.0.1:9/nobody/nothing.git/'")
    assert seen.phase is Phase.starting


@real_programs
async def test_a_failed_clone_is_still_told_by_the_next_server(harness: Harness) -> None:
    """A server that was killed comes back and says the same of a workspace that ran on."""
    wanted = workspace(repository="https://127.0.0.1:9/nobody/nothing.git")
    async with harness.engine() as engine:
        await engine.apply(wanted, harness.template("healthy"))
        told = await until(engine, wanted, lambda o: bool(o.notices))
    async with harness.engine() as engine:
        found = await until(engine, wanted, lambda o: o.phase is Phase.starting)
        assert found.notices == told.notices
