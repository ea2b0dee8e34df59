"""`unshare --mount python -m support.cgroup_v2`: the process runtime where the kernel shows no cgroups but v2.

Memory, cpu and pids may belong to v1 and cannot be tried then; entering, delegating, listing, killing, counting and
removing are v2's own. A program, since mounts are a process's own only from its start. Ends with 0 when all held.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from mooring.workspaces.processes import cgroups, membership
from mooring.workspaces.processes.runtime import ProcessRuntime
from support.runtime_process import ProcessHarness, harness
from support.runtimes import WITHIN_S, answered, stopped, workspace

POINT = Path("/sys/fs/cgroup")
CONTROLLERS = cgroups.V2
FREE = "hugetlb"
"""A controller that v1 has not taken."""
# Out of its session, without its parent and without the workspace's marks: only the cgroup still knows it.
DAEMON = "setsid env -i /bin/sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"
FORKER = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait"


def only_v2() -> None:
    """Take every v1 hierarchy out of sight."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if " - cgroup" in line:
            subprocess.run(["umount", "-l", line.split()[4]], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", str(POINT)], check=True)


def entered() -> Path:
    """A cgroup of its own, with this process in it."""
    own = POINT / f"mooring-test-{os.getpid()}"
    own.mkdir()
    (own / "cgroup.procs").write_text("0")
    return own


@contextmanager
def handed_down(controller: str) -> Iterator[None]:
    """The machine's own root gives its children this controller; afterwards as it was."""
    control = POINT / "cgroup.subtree_control"
    before = control.read_text().split()
    control.write_text(f"+{controller}")
    try:
        yield
    finally:
        if controller not in before:
            control.write_text(f"-{controller}")


async def said(runtime: ProcessRuntime, workspace_id: str, script: str) -> int:
    """The number that a command in the workspace prints."""
    session = await runtime.exec(workspace_id, ["sh", "-c", script], environment={}, tty=False)
    async with asyncio.timeout(WITHIN_S), aclosing(session.output()) as output:
        async for _, data in output:
            return int(data)
    raise AssertionError("it said nothing")


async def runs(world: ProcessHarness, own: Path) -> None:
    """A workspace from its start to its end."""
    assert world.root is not None
    assert world.root.version == 2
    assert Path("/proc/self/cgroup").read_text().strip().endswith("/services"), "a leaf: the root may have children"
    assert (own / "cgroup.procs").read_text() == ""
    assert cgroups.find(name=own.name) == world.root, "a server finds what its supervisor has prepared"
    one, template = workspace(limits={"memory": "64Mi"}), world.template("healthy")
    async with world.engine() as runtime:
        seen = await runtime.apply(one, template)
        assert seen.limited + seen.unlimited == ("memory",), "as the kernel has it: held, or told to be not"
        folder = Path(world.root.folders[""]) / one.id
        editor = int(await answered(seen))
        assert editor in membership.pids([str(folder)])
        assert f"/{one.id}" in Path(f"/proc/{editor}/cgroup").read_text()
        assert cgroups.counters((str(folder),)).cpu_s
        daemon = await said(runtime, one.id, DAEMON)
        nested = folder / "made-inside"
        await said(runtime, one.id, f"mkdir {nested} && echo {daemon} > {nested}/cgroup.procs; echo 1")
        assert membership.pids([str(nested)]) == {daemon}
        await runtime.apply(stopped(one), template)
        # It may not have been waited for yet, by whoever is process 1.
        assert _stat(daemon) in ("", "Z", "X")
        assert "populated 0" in _read(folder / "cgroup.events")
        await runtime.delete(one.id)
        assert not folder.exists()


def ends_at_once(own: Path) -> None:
    """Everything in a cgroup ends by one write, also what forks."""
    folder = own / "w"
    folder.mkdir()
    forker = subprocess.Popen(["sh", "-c", f"echo 0 > {folder}/cgroup.procs; {FORKER}"], start_new_session=True)
    while len(membership.pids([str(folder)])) < 10:
        pass
    membership.kill([str(folder)])
    assert forker.wait(10) == -9
    while "populated 1" in (folder / "cgroup.events").read_text():
        pass
    cgroups.remove((str(folder),))
    assert not folder.exists()


def _stat(pid: int) -> str:
    """The letter of a process's state, empty when it is gone."""
    try:
        text = (Path("/proc") / str(pid) / "stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].strip()[:1]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else "populated 0"


def outlives_its_supervisor(own: Path) -> None:
    """What still runs when the supervisor goes keeps its cgroup, and with it the controllers that limit it."""
    with cgroups.prepare(os.geteuid(), os.getegid(), name="replaced") as root:
        assert root is not None
        (Path(root.folders[""]) / "w").mkdir()
    assert Path("/proc/self/cgroup").read_text().strip().endswith("/replaced/services")
    (Path(root.folders[""]) / "w").rmdir()
    cgroups._release(root, own)
    assert Path("/proc/self/cgroup").read_text().strip().endswith(own.name)


def above_a_shell(own: Path) -> None:
    """In a terminal's cgroup, where the shell is too, limits are had beside it; nothing of that is left."""
    (controller,) = cgroups.V2 = (FREE,)
    terminal = own / "terminal"
    terminal.mkdir()
    shell = subprocess.Popen(["sleep", "1000"])
    for pid in (shell.pid, 0):
        (terminal / "cgroup.procs").write_text(str(pid))
    with cgroups.prepare(os.geteuid(), os.getegid(), name="beside") as root:
        assert root is not None
        assert root.folders == {"": str(own / "beside"), controller: str(own / "beside")}
        (own / "beside/w").mkdir()
        assert f"{controller}.2MB.max" in {entry.name for entry in (own / "beside/w").iterdir()}
        (own / "beside/w").rmdir()
    assert Path("/proc/self/cgroup").read_text().strip().endswith("/terminal")
    assert [entry.name for entry in own.iterdir() if entry.is_dir()] == ["terminal"]
    shell.kill()
    shell.wait()
    (own / "cgroup.subtree_control").write_text(f"-{controller}")
    (own / "cgroup.procs").write_text("0")
    terminal.rmdir()
    cgroups.V2 = CONTROLLERS


async def main() -> None:
    """All of it."""
    only_v2()
    # Taken back last: the kernel refuses it as long as a cgroup below uses it.
    with handed_down(FREE):
        await everything(entered())


async def everything(own: Path) -> None:
    """Each in turn; nothing is left in `own`, nor itself."""
    try:
        ends_at_once(own)
        above_a_shell(own)
        outlives_its_supervisor(own)
        async with harness(own) as world:
            await runs(world, own)
        assert Path("/proc/self/cgroup").read_text().strip().endswith(own.name), "released: back where it came from"
        assert not any(entry.is_dir() for entry in own.iterdir())
    finally:
        (POINT / "cgroup.procs").write_text("0")
        membership.kill([str(own)])
        while "populated 1" in _read(own / "cgroup.events"):
            await asyncio.sleep(0.01)
        cgroups.remove((str(own),))


if __name__ == "__main__":
    asyncio.run(main())
