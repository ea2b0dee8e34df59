"""Limits, disks and ports of the process runtime, on this machine's own cgroups and sockets."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import pytest

from mooring.errors import Unavailable
from mooring.model.template import Template
from mooring.model.workspace import Phase, Workspace
from mooring.workspaces import output
from mooring.workspaces.processes import membership
from mooring.workspaces.processes.runtime import ProcessRuntime
from support.runtime_process import ProcessHarness, account, harness
from support.runtimes import SHARE, WITHIN_S, answered, get, stopped, until, workspace

HOG = "b = bytearray(256 << 20); print(len(b))"
NO_REPOSITORY = "https://127.0.0.1:9/nobody/nothing.git"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    """A home of its own, with cgroups."""
    async with harness(tmp_path) as opened:
        yield opened


@contextmanager
def small_disk(folder: Path, size: str, *, options: str = "") -> Iterator[None]:
    """A file system of that size at `folder`, which the workspace user owns."""
    user = account()
    assert user is not None
    chosen = f"size={size},uid={user[0]},gid={user[1]},mode=700{options}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", chosen, "mooring-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No room at all there, for a while."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)
    yield
    filler.unlink()


async def run(runtime: ProcessRuntime, wanted: Workspace, *command: str) -> tuple[int, str]:
    """The exit status of a command and what it says."""
    session = await runtime.exec(wanted.id, command, environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S):
        said = [data async for _, data in session.output()]
        return await session.wait(), b"".join(said).decode()


def script(world: ProcessHarness, text: str) -> Template:
    """A template whose editor is a piece of Python after the light editor's socket argument."""
    path = world.editor.with_name("editor.py")
    path.write_text(text)
    template = world.template("healthy")
    command = ("python3", "-I", "-S", str(path), "{socket}")
    return template.model_copy(update={"editor": template.editor.model_copy(update={"command": command})})


def writing(lines: int, line: str, *, pause_s: float) -> str:
    """A program that writes so many lines, each the expression `line` of its number `n`."""
    loop = f"for n in range({lines}):\n    print({line}, flush=True)\n    time.sleep({pause_s})\n"
    return f"import time\n{loop}time.sleep(1000)\n"


async def test_a_hog_in_a_terminal_is_killed_and_the_editor_is_not(world: ProcessHarness) -> None:
    """Memory above the limit kills the process that wanted it; the reason is a notice and a line of the output.

    What failed before is told beside it.
    """
    wanted = workspace(limits={"memory": "64Mi"}, repository=NO_REPOSITORY)
    async with world.engine() as runtime:
        seen = await runtime.apply(wanted, world.template("healthy"))
        assert seen.limited == ("memory",)
        pid = await answered(seen)
        status, said = await run(runtime, wanted, "python3", "-c", HOG)
        assert (status, said) == (128 + 9, "")
        seen = await until(runtime, wanted, lambda seen: len(seen.notices) > 1)
        clone, memory = sorted(seen.notices)
        assert clone.startswith("git clone failed")
        assert "memory limit of 64Mi" in memory
        assert await answered(seen) == pid
        written = b"".join([data async for _, data in runtime.read(wanted.id, offset=0, follow=False)])
        assert b"memory limit of 64Mi was reached" in written


async def test_an_editor_that_wants_too_much_memory_fails_with_that_reason(world: ProcessHarness) -> None:
    """An editor that cannot live within its limit ends in failed, and the reason names the limit."""
    wanted = workspace(limits={"memory": "64Mi"})
    async with world.engine() as runtime:
        await runtime.apply(wanted, script(world, HOG))
        seen = await until(runtime, wanted, lambda seen: seen.phase is Phase.failed)
        assert "memory limit of 64Mi was reached" in seen.reason


async def test_processes_are_limited(world: ProcessHarness) -> None:
    """A program that forks for ever meets its limit, and the stop still ends all of it."""
    wanted, template = workspace(limits={"pids": 40}), world.template("healthy")
    forks = "import os, time\nfor _ in range(200):\n    if os.fork() == 0:\n        os.setsid(), time.sleep(1000)"
    async with world.engine() as runtime:
        await answered(await runtime.apply(wanted, template))
        session = await runtime.exec(wanted.id, ["python3", "-c", forks], environment={}, tty=False)
        async with asyncio.timeout(WITHIN_S):
            assert await session.wait() == 1
        assert 20 < world.alive(wanted) <= 40
        await runtime.apply(stopped(wanted), template)
        assert world.alive(wanted) == 0
        await session.close()


async def test_processor_time_is_limited(world: ProcessHarness) -> None:
    """A busy program gets its workspace's share of a processor, whatever else the machine does."""
    wanted = workspace(limits={"cpu": 0.2})
    async with world.engine() as runtime:
        seen = await runtime.apply(wanted, world.template("healthy"))
        assert seen.limited == ("cpu",)
        await answered(seen)
        before = throttled(world, wanted)
        async with asyncio.timeout(WITHIN_S):
            # Others can keep a program below any share: only the kernel's word tells the limit's doing from theirs.
            while throttled(world, wanted) == before:
                status, share = await run(runtime, wanted, "python3", "-c", SHARE)
                assert status == 0
                assert float(share) < 0.4


def throttled(world: ProcessHarness, wanted: Workspace) -> int:
    """How many times the kernel has held the workspace back."""
    files = [Path(folder) / "cpu.stat" for folder in world.state(wanted)["folders"]]
    text = "".join(file.read_text() for file in files if file.exists())
    return int(text.partition("nr_throttled ")[2].split()[0])


async def test_limits_are_gone_with_the_workspace(world: ProcessHarness) -> None:
    """The processes are in the workspace's cgroups while it runs; a stop removes them."""
    wanted, template = workspace(limits={"cpu": 0.5, "memory": "128Mi", "pids": 60}), world.template("healthy")
    async with world.engine() as runtime:
        seen = await runtime.apply(wanted, template)
        assert set(seen.limited) == {"cpu", "memory", "pids"}
        folders = [Path(folder) for folder in world.state(wanted)["folders"]]
        assert all(membership.pids([str(folder)]) >= {world.editor_pid(wanted)} for folder in folders)
        await runtime.apply(stopped(wanted), template)
        assert not any(folder.exists() for folder in folders)


async def test_without_cgroups_the_limits_are_named_as_not_enforced(world: ProcessHarness) -> None:
    """Where no cgroup can be written the workspace runs, unlimited, and says so."""
    world.root = None
    wanted = workspace(limits={"cpu": 1, "memory": "64Mi", "pids": 60, "storage": "1Gi"})
    async with world.engine() as runtime:
        seen = await runtime.apply(wanted, world.template("healthy"))
        assert seen.limited == ()
        assert set(seen.unlimited) == {"cpu", "memory", "pids", "storage"}
        await answered(seen)
        before = await runtime.usage(wanted.id)
        status, _ = await run(runtime, wanted, "python3", "-c", HOG)
        assert status == 0
        usage = await runtime.usage(wanted.id)
        assert before is not None
        assert usage is not None
        assert usage.memory_bytes > 0
        assert usage.cpu_s > before.cpu_s


async def test_a_start_on_a_full_disk_says_so_and_works_later(world: ProcessHarness) -> None:
    """Nothing can be created: the error names the disk and the path; with room the same start works."""
    wanted = workspace()
    with small_disk(world.home.root, "256k"):
        async with world.engine() as runtime:
            with filled(world.home.root), pytest.raises(Unavailable, match="No space left on device"):
                await runtime.apply(wanted, world.template("healthy"))
            assert await answered(await runtime.apply(wanted, world.template("healthy")))
            await runtime.delete(wanted.id)


async def test_a_disk_that_fills_up_loses_no_output_and_no_workspace(world: ProcessHarness) -> None:
    """The editor runs on, a notice names the disk, and what was written meanwhile is there when there is room.

    A clone that failed before is told all the while.
    """
    wanted, template = workspace(repository=NO_REPOSITORY), world.template("healthy")
    with small_disk(world.home.root, "1m"):
        async with world.engine() as runtime:
            seen = await runtime.apply(wanted, template)
            await answered(seen, "/healthz")
            failed = (await until(runtime, wanted, lambda seen: bool(seen.notices))).notices
            assert failed[0].startswith("git clone failed")
            with filled(world.home.root):
                for number in range(100):
                    assert await get(seen, f"/say/{number:04d}{'y' * 60}") == "said"
                full = await until(runtime, wanted, lambda seen: len(seen.notices) > 1)
                assert full.notices[:1] == failed
                assert "No space left on device" in full.notices[1]
            await until(runtime, wanted, lambda seen: seen.notices == failed)
            written = b"".join([data async for _, data in runtime.read(wanted.id, offset=0, follow=False)])
            numbers = [int(line[:4]) for line in written.split(b"\n") if line.endswith(b"y")]
            assert numbers == list(range(100))
            await runtime.delete(wanted.id)


async def test_a_stop_works_on_a_full_disk(world: ProcessHarness) -> None:
    """A stop needs no room, and the next start with room is a start like any other."""
    wanted, template = workspace(), world.template("healthy")
    with small_disk(world.home.root, "256k"):
        async with world.engine() as runtime:
            await answered(await runtime.apply(wanted, template))
            with filled(world.home.root):
                assert (await runtime.apply(stopped(wanted), template)).phase is Phase.stopped
                assert world.alive(wanted) == 0
            assert await answered(await runtime.apply(workspace(generation=2), template))
            await runtime.delete(wanted.id)


async def test_a_read_only_home_is_a_clear_reason(world: ProcessHarness) -> None:
    """A start says which path cannot be written; a workspace that already ran goes on and can be stopped."""
    running, other, template = workspace(1), workspace(2), world.template("healthy")
    with small_disk(world.home.root, "256k"):
        async with world.engine() as runtime:
            seen = await runtime.apply(running, template)
            pid = await answered(seen)
            subprocess.run(["mount", "--bind", str(world.home.root), str(world.home.root)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(world.home.root)], check=True)
            try:
                with pytest.raises(Unavailable, match="Read-only file system"):
                    await runtime.apply(other, template)
                assert await answered(seen) == pid
            finally:
                subprocess.run(["umount", "--lazy", str(world.home.root)], check=True)
            await runtime.delete(running.id)


async def test_output_survives_its_keeper(world: ProcessHarness) -> None:
    """What the editor writes between two keepers waits in the pipe: every line is there once, in order."""
    wanted = workspace()
    text = writing(3000, "'line %05d' % n", pause_s=0.0005)
    async with world.engine() as runtime:
        await runtime.apply(wanted, script(world, text))
        for _ in range(3):
            await asyncio.sleep(0.2)
            await kill_keeper(world, runtime, wanted)
        read = b""
        async with asyncio.timeout(WITHIN_S), aclosing(runtime.read(wanted.id, offset=0, follow=True)) as chunks:
            async for _, data in chunks:
                read += data
                if b"line 02999" in read:
                    break
    lines = [line for line in read.decode().splitlines() if line.startswith("line ")]
    assert lines == [f"line {n:05d}" for n in range(3000)]


async def kill_keeper(world: ProcessHarness, runtime: ProcessRuntime, wanted: Workspace) -> None:
    """Kill it and wait for the next one."""
    before = world.state(wanted)["keeper"]
    os.kill(before[0], 9)
    await until(runtime, wanted, lambda seen: world.state(wanted)["keeper"] != before and not seen.reason)


async def test_a_reader_follows_across_rotation(world: ProcessHarness) -> None:
    """Twenty megabytes are read whole while they are written, although only two files are kept."""
    wanted = workspace()
    text = writing(320, "'%04d' % n + 'x' * 65531", pause_s=0.005)
    async with world.engine() as runtime:
        await runtime.apply(wanted, script(world, text))
        size, end = 0, 0
        async with asyncio.timeout(WITHIN_S), aclosing(runtime.read(wanted.id, offset=0, follow=True)) as chunks:
            async for end, data in chunks:
                size += len(data)
                if end > 320 * 65536:
                    break
        assert size == end
        assert len(output.segments(str(world.home.workspace(wanted.id) / "log"))) == 2


async def test_a_neighbours_listener_is_not_ones_own(world: ProcessHarness) -> None:
    """A port belongs to the workspace whose process listens, to nobody else, and to nobody when it is ours."""
    one, two, template = workspace(1), workspace(2), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(one, template)
        await runtime.apply(two, template)
        port = await listening(runtime, one, "127.0.0.1", "AF_INET")
        assert await runtime.owns_port(one.id, port) == f"127.0.0.1:{port}"
        assert await runtime.owns_port(two.id, port) is None
        port = await listening(runtime, two, "::", "AF_INET6")
        assert await runtime.owns_port(two.id, port) == f"[::1]:{port}"
        assert await runtime.owns_port(one.id, port) is None
        await runtime.apply(stopped(two), template)
        assert await runtime.owns_port(two.id, port) is None


async def test_a_port_that_is_shared_is_nobodys(world: ProcessHarness) -> None:
    """Two workspaces on one port (SO_REUSEPORT): the kernel would hand connections to either, so neither owns it."""
    one, two, template = workspace(1), workspace(2), world.template("healthy")
    async with world.engine() as runtime:
        await runtime.apply(one, template)
        await runtime.apply(two, template)
        port = await listening(runtime, one, "127.0.0.1", "AF_INET")
        assert await runtime.owns_port(one.id, port) is not None
        await listening(runtime, two, "127.0.0.1", "AF_INET", port)
        assert await runtime.owns_port(one.id, port) is None
        assert await runtime.owns_port(two.id, port) is None


async def listening(runtime: ProcessRuntime, wanted: Workspace, address: str, family: str, port: int = 0) -> int:
    """Have the workspace listen; the port."""
    text = (
        f"import socket, time\ns = socket.socket(socket.{family})\ns.setsockopt(1, 15, 1)\n"
        f"s.bind(('{address}', {port}))\ns.listen()\nprint(s.getsockname()[1], flush=True)\ntime.sleep(1000)"
    )
    session = await runtime.exec(wanted.id, ["python3", "-c", text], environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S), aclosing(session.output()) as said:
        async for _, data in said:
            return int(data)
    raise AssertionError("it does not listen")
