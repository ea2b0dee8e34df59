"""The docker runtime on a real engine: what a hostile workspace cannot do, and what survives."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from mooring.errors import Conflict, Misconfigured, Unavailable
from mooring.model.template import Template
from mooring.model.workspace import Phase, Workspace
from mooring.settings import Listen
from mooring.workspaces.docker.modules import ADDRESS
from mooring.workspaces.docker.runtime import DockerRuntime, Settings
from mooring.workspaces.ports import Observation
from mooring.workspaces.templates import BUILTIN, parse
from support.docker import LIGHT_IMAGE, WORKSPACE_IMAGE
from support.runtime_docker import DockerHarness
from support.runtime_docker import harness as open_harness
from support.runtimes import SHARE, WITHIN_S, stopped, workspace

_INTERNET = "198.51.100.2"  # TEST-NET-2 of RFC 5737, here a network namespace of the test's own
_CONNECT = """
import socket, sys
for text in sys.argv[1:]:
    host, _, port = text.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        print(text, "open")
    except OSError as error:
        print(text, type(error).__name__)
"""


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[DockerHarness]:
    """The session's engine and a home."""
    async with open_harness(tmp_path) as opened:
        yield opened


@pytest.fixture
async def runtime(harness: DockerHarness) -> AsyncIterator[DockerRuntime]:
    """A runtime on it."""
    async with harness.engine() as opened:
        assert isinstance(opened, DockerRuntime)
        yield opened


@pytest.fixture
def internet() -> Iterator[str]:
    """An address that a router of this machine leads to, with a server on port 80."""
    name, near, far = "mtest", "mtest-near", "mtest-far"
    # An earlier session may have been killed.
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    subprocess.run(["ip", "link", "delete", near], check=False, capture_output=True)
    for command in (
        f"ip netns add {name}",
        f"ip link add {near} type veth peer name {far} netns {name}",
        f"ip address add 198.51.100.1/30 dev {near}",
        f"ip link set {near} up",
        f"ip -n {name} address add {_INTERNET}/30 dev {far}",
        f"ip -n {name} link set {far} up",
    ):
        subprocess.run(command.split(), check=True)
    command = ["ip", "netns", "exec", name, "python3", "-m", "http.server", "--bind", _INTERNET, "80"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _INTERNET
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "netns", "delete", name], check=True)
        subprocess.run(["ip", "link", "delete", near], check=False, capture_output=True)


async def started(runtime: DockerRuntime, harness: DockerHarness, wanted: Workspace) -> Observation:
    """Applied, and its editor answers."""
    seen = await runtime.apply(wanted, harness.template("healthy"))
    await answers(harness, seen)
    return seen


async def answers(harness: DockerHarness, seen: Observation) -> None:
    """Return when the editor answers."""
    async with asyncio.timeout(WITHIN_S):
        while not await harness.ask(seen, "/healthz"):
            await asyncio.sleep(0.05)


async def run(runtime: DockerRuntime, wanted: Workspace, *command: str, within_s: float = WITHIN_S) -> str:
    """What a command says on both outputs."""
    session = await runtime.exec(wanted.id, command, environment={}, tty=False)
    async with asyncio.timeout(within_s):
        said = b"".join([data async for _, data in session.output()])
        await session.wait()
    return said.decode(errors="replace")


async def until(runtime: DockerRuntime, wanted: Workspace, **values: object) -> Observation:
    """The first observation of a new watch with these values."""
    async with asyncio.timeout(WITHIN_S), aclosing(runtime.watch()) as watch:
        async for seen in watch:
            if seen.id == wanted.id and all(getattr(seen, name) == value for name, value in values.items()):
                return seen
    raise AssertionError("the watch ended")


def host_addresses() -> list[str]:
    """Every IPv4 and IPv6 address of this machine but loopback, the bridges' included."""
    done = subprocess.run(["ip", "-o", "address", "show"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    found = [row[3].partition("/")[0] for row in rows if row[1] != "lo" and row[2] in ("inet", "inet6")]
    return [address for address in found if not address.startswith("fe80:")]


async def others_containers(harness: DockerHarness) -> tuple[list[str], str]:
    """Two containers of somebody's that serve: at port 8099 of every address of the host, and at the address given."""
    docker = harness.dockerd.cli
    # Of the pool, which is all that the tests may talk to; the runtime takes what is left of it.
    docker("network", "create", "--subnet", "10.213.255.240/28", "somebodys")
    serves = (LIGHT_IMAGE, "python3", "/light_editor.py", "8099")
    made = [docker("run", "-d", *options, *serves).strip() for options in (("-p", "8099:8099"), ("--net", "somebodys"))]
    address = docker("inspect", "-f", "{{.NetworkSettings.Networks.somebodys.IPAddress}}", made[1]).strip()
    for host in ("127.0.0.1", address):
        # Asked before it listens it would refuse by itself.
        async with asyncio.timeout(WITHIN_S):
            while not await is_open(host, 8099):
                await asyncio.sleep(0.05)
    return made, f"{address}:8099"


async def is_open(host: str, port: int) -> bool:
    """Whether something there answers HTTP: Docker's own proxy accepts before the container does."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        said = await reader.read(12)
        writer.close()
    except OSError:
        return False
    return said.endswith(b" 200")


async def test_a_workspace_reaches_nothing_of_the_machine(
    runtime: DockerRuntime, harness: DockerHarness, internet: str
) -> None:
    """The host at each address, metadata, published ports and a neighbour are refused; the world is not."""
    one, two = workspace(1), workspace(2)
    await started(runtime, harness, one)
    neighbour = await started(runtime, harness, two)
    assert neighbour.editor is not None
    assert neighbour.editor.address is not None
    published, elsewhere = await others_containers(harness)
    server = await asyncio.start_server(lambda _r, writer: writer.close(), "0.0.0.0", 0)  # noqa: S104 - the point
    async with server:
        port = server.sockets[0].getsockname()[1]
        hosts = [*host_addresses(), "host.docker.internal", "gateway.docker.internal"]
        mooring = [f"{host}:{port}" for host in hosts]
        others = [f"{host}:8099" for host in hosts] + [neighbour.editor.address, "169.254.169.254:80", elsewhere]
        said = await run(runtime, one, "python3", "-c", _CONNECT, *mooring, *others, f"{internet}:80")
    *refused, world = said.splitlines()
    assert len(refused) == len(mooring) + len(others)
    assert [line for line in refused if line.endswith(" open")] == []
    assert [line for line in refused if "Timeout" in line] == []
    assert world == f"{internet}:80 open"
    harness.dockerd.cli("rm", "-f", *published)


async def test_two_workspaces_serve_the_same_port(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """Each workspace has its own port 3000, and each is reached at its own address."""
    pages = {}
    for number in (1, 2):
        wanted = workspace(number)
        seen = await started(runtime, harness, wanted)
        script = f"mkdir p; echo page {number} > p/index.html; python3 -m http.server -d p 3000 >/dev/null 2>&1 &"
        await run(runtime, wanted, "sh", "-c", script)
        assert seen.ports is not None
        address = (seen.ports.address or "").replace("{port}", "3000")
        async with asyncio.timeout(WITHIN_S):
            while await runtime.owns_port(wanted.id, 3000) != address:
                await asyncio.sleep(0.05)
        pages[number] = await harness.ask(replace(seen, editor=seen.ports.model_copy(update={"address": address})), "/")
    assert pages == {1: "page 1\n", 2: "page 2\n"}


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - the point
async def test_a_server_on_loopback_is_reached(runtime: DockerRuntime, harness: DockerHarness, bind: str) -> None:
    """A development server that listens on 127.0.0.1 alone has a URL too, also after a restart of the container."""
    wanted = workspace()
    seen = await started(runtime, harness, wanted)
    assert seen.ports is not None
    address = (seen.ports.address or "").replace("{port}", "3000")
    port = replace(seen, editor=seen.ports.model_copy(update={"address": address}))
    for restarts in (0, 1):
        await until(runtime, wanted, restarts=restarts, reason="")
        script = f"echo hello > index.html; python3 -m http.server --bind {bind} 3000 >/dev/null 2>&1 &"
        await run(runtime, wanted, "sh", "-c", script)
        async with asyncio.timeout(WITHIN_S):
            while await harness.ask(port, "/") != "hello\n":
                await asyncio.sleep(0.05)
        os.kill(harness.editor_of(wanted.id), signal.SIGKILL)


async def test_a_server_that_ended_in_a_start_leaves_no_way_shut(harness: DockerHarness) -> None:
    """What the first had no time to open the next one does; a third finds it open."""
    wanted = workspace()
    async with harness.engine() as first:
        await first.apply(wanted, harness.template("healthy"))
    for _ in range(2):
        async with harness.engine() as later:
            seen = await started(later, harness, wanted)
            assert seen.ports is not None
            address = (seen.ports.address or "").replace("{port}", "3000")
            port = replace(seen, editor=seen.ports.model_copy(update={"address": address}))
            script = "echo hello > index.html; python3 -m http.server --bind 127.0.0.1 3000 >/dev/null 2>&1 &"
            await run(later, wanted, "sh", "-c", script)
            async with asyncio.timeout(WITHIN_S):
                while await harness.ask(port, "/") != "hello\n":
                    await asyncio.sleep(0.05)


async def test_a_start_puts_removed_rules_back(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """Whoever flushes the packet filter opens nothing to workspaces that start afterwards."""
    await started(runtime, harness, workspace(1))
    subprocess.run(["nft", "delete", "table", "inet", "mooring"], check=True)
    await started(runtime, harness, workspace(2))
    rules = subprocess.run(["nft", "list", "table", "inet", "mooring"], capture_output=True, text=True, check=True)
    assert 'iifname != "mrg*" return' in rules.stdout


async def test_without_the_rules_no_workspace_starts(harness: DockerHarness) -> None:
    """Where the rules cannot be set the start fails, says why, and leaves no container."""
    settings = Settings(harness.home, Listen(), host=harness.dockerd.host, image="debian:bookworm-slim")
    async with DockerRuntime(settings) as runtime:
        with pytest.raises(Misconfigured, match="guard"):
            await runtime.apply(workspace(), harness.template("healthy"))
    assert harness.dockerd.cli("ps", "-aq") == ""


async def test_a_workspace_has_no_privileges(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """User 1000, no capability, none to be gained, and nothing to write outside its own files."""
    wanted = workspace()
    await started(runtime, harness, wanted)
    status = dict(
        line.split(":\t", 1) for line in (await run(runtime, wanted, "cat", "/proc/self/status")).splitlines()
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "Read-only" in await run(runtime, wanted, "touch", "/usr/local/x", "/etc/x", "/opt/x")
    assert await run(runtime, wanted, "touch", "/tmp/x", "/home/coder/x") == ""  # noqa: S108 - its own


async def test_a_fork_bomb_stays_inside(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A workspace that forks without end reaches its own limit; its neighbour works, and it can be stopped."""
    bomb, neighbour = workspace(1, limits={"pids": 100}), workspace(2)
    seen = await started(runtime, harness, bomb)
    assert "pids" in seen.limited
    script = "f() { f | f & }; f; sleep 2"
    session = await runtime.exec(bomb.id, ["bash", "-c", script], environment={}, tty=False)
    await started(runtime, harness, neighbour)
    assert harness.alive(bomb) <= 100
    async with asyncio.timeout(WITHIN_S):
        await runtime.apply(stopped(bomb), harness.template("healthy"))
        await session.close()
    assert harness.alive(bomb) == 0


async def test_memory_that_runs_out_is_said(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A build that takes too much is killed, which is told beside what failed before; the editor goes on."""
    wanted = workspace(limits={"memory": "64Mi"}, repository="https://127.0.0.1:9/nobody/nothing.git")
    seen = await started(runtime, harness, wanted)
    assert "memory" in seen.limited
    await run(runtime, wanted, "python3", "-c", "b'x' * 500_000_000")
    async with asyncio.timeout(WITHIN_S), aclosing(runtime.watch()) as watch:
        async for told in watch:
            if len(told.notices) > 1:
                break
    clone, memory = sorted(told.notices)
    assert clone.startswith("git clone failed")
    assert memory.startswith("the memory limit was reached")
    assert told.phase is Phase.starting
    await answers(harness, seen)


async def test_an_editor_out_of_memory_says_why(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """An editor that the kernel killed for its memory fails with that reason."""
    template = harness.template("healthy")
    greedy = template.editor.model_copy(update={"command": ("python3", "-c", "b'x' * 500_000_000")})
    wanted = workspace(limits={"memory": "32Mi"})
    await runtime.apply(wanted, template.model_copy(update={"editor": greedy}))
    assert "memory limit" in (await until(runtime, wanted, phase=Phase.failed)).reason


async def test_processor_time_is_limited_inside(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A busy program gets its workspace's share of a processor, whatever else the machine does."""
    wanted = workspace(limits={"cpu": 0.2})
    assert "cpu" in (await started(runtime, harness, wanted)).limited
    assert float(await run(runtime, wanted, "python3", "-c", SHARE)) < 0.4


async def test_storage_is_limited_where_the_disk_has_quotas(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A volume takes no more than its limit; where the engine's disk has no quotas that is said, and all of it fits."""
    wanted = workspace(limits={"storage": "20Mi"})
    seen = await started(runtime, harness, wanted)
    options = harness.dockerd.cli("volume", "inspect", "-f", "{{.Options}}", f"mooring-{wanted.id}")
    assert ("storage" in seen.limited) == ("size" in options)
    assert ("storage" in seen.unlimited) == ("size" not in options)
    told = await run(runtime, wanted, "sh", "-c", "head -c 40M /dev/zero > ~/large")
    assert ("No space left on device" in told) == ("size" in options)


async def test_nobody_takes_the_port_of_a_dead_editor(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A program that waits for the editor's port dies with the editor, and does not get it."""
    wanted = workspace()
    seen = await started(runtime, harness, wanted)
    script = "echo ready; while :; do python3 -m http.server 9999 2>/dev/null; done"
    squatter = await runtime.exec(wanted.id, ["sh", "-c", script], environment={}, tty=False)
    async with aclosing(squatter.output()) as output:
        assert await anext(output)
    os.kill(harness.editor_of(wanted.id), signal.SIGKILL)
    await until(runtime, wanted, restarts=1, reason="")
    async with asyncio.timeout(WITHIN_S):
        assert await squatter.wait() == 137
    await squatter.close()
    await answers(harness, seen)
    assert await harness.ask(seen, "/healthz") == '{"status":"alive"}'


async def test_a_killed_engine_comes_back_with_its_workspaces(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """After a kill of the engine and all containers the watch tells of it, and the editors run again."""
    wanted = workspace()
    seen = await started(runtime, harness, wanted)
    await run(runtime, wanted, "sh", "-c", "echo kept > file")
    await asyncio.to_thread(harness.dockerd.kill)
    assert await harness.ask(seen, "/healthz") == ""
    await asyncio.to_thread(harness.dockerd.start)
    async with asyncio.timeout(WITHIN_S):
        await until(runtime, wanted, restarts=1, reason="")
        await answers(harness, seen)
    assert await run(runtime, wanted, "cat", "file") == "kept\n"
    assert runtime.watch_age_s() < WITHIN_S


async def test_the_output_is_whole_across_servers(harness: DockerHarness) -> None:
    """Lines written while no server follows are there later, and no line is there twice."""
    wanted, lines = workspace(), []
    for turn in range(3):
        async with harness.engine() as engine:
            seen = await engine.apply(wanted, harness.template("healthy"))
            await answers(harness, seen)
            for number in range(20):
                lines.append(f"turn-{turn}-{number}")
                await harness.ask(seen, f"/say/{lines[-1]}")
        lines.append(f"alone-{turn}")
        await harness.ask(seen, f"/say/{lines[-1]}")
    async with harness.engine() as engine, asyncio.timeout(WITHIN_S):
        read = b""
        async with aclosing(engine.read(wanted.id, offset=0, follow=True)) as output:
            async for _, data in output:
                read += data
                if b"alone-2" in read:
                    break
    assert [line for line in read.decode().splitlines() if line.startswith(("turn-", "alone-"))] == lines


async def test_a_start_that_cannot_be_kept_makes_nothing(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A workspace whose folder takes no file has nothing on the engine that nobody would know of, and starts later."""
    wanted = workspace()
    folder = harness.home.workspace(wanted.id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()
    with pytest.raises(Unavailable, match="File exists"):
        await runtime.apply(wanted, harness.template("healthy"))
    assert wanted.id not in harness.dockerd.cli("volume", "ls", "-q")
    assert wanted.id not in harness.dockerd.cli("ps", "--all", "--format", "{{.Names}}")
    folder.unlink()
    await started(runtime, harness, wanted)
    assert wanted.id in harness.dockerd.cli("volume", "ls", "-q")


async def test_an_absent_image_is_an_operators_matter(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """An image that is neither here nor to be had says what to type."""
    with pytest.raises(Misconfigured, match="make images"):
        await runtime.apply(workspace(), harness.template("missing"))


async def test_a_command_needs_a_running_workspace(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """A stopped workspace takes no commands, though its volume exists."""
    wanted = workspace()
    await started(runtime, harness, wanted)
    await runtime.apply(stopped(wanted), harness.template("healthy"))
    with pytest.raises(Conflict):
        await runtime.exec(wanted.id, ["true"], environment={}, tty=False)


async def test_nothing_of_a_deleted_workspace_stays(runtime: DockerRuntime, harness: DockerHarness) -> None:
    """Container, network, volume and output are gone."""
    wanted = workspace(repository="https://127.0.0.1:9/nobody/nothing.git")
    await started(runtime, harness, wanted)
    await runtime.delete(wanted.id)
    for what in (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q", "--filter=type=custom")):
        assert harness.dockerd.cli(*what) == ""
    assert not harness.home.workspace(wanted.id).exists()


class Offered:
    """Surroundings that offer a module proxy."""

    async def environment(self, workspace: Workspace, template: Template) -> Mapping[str, str]:
        assert workspace.id
        assert template.name
        return {"GOPROXY": f"{ADDRESS}/t-token", "GREETING": "offered"}


async def test_an_image_without_a_forwarder_says_so(harness: DockerHarness) -> None:
    """The workspace runs with what it was offered, its own variables go before, and a notice says what is missing."""
    settings = Settings(harness.home, Listen(), host=harness.dockerd.host, image=LIGHT_IMAGE)
    wanted = workspace(environment={"GREETING": "own"})
    async with DockerRuntime(settings, Offered()) as runtime:
        await started(runtime, harness, wanted)
        said = await run(runtime, wanted, "sh", "-c", "echo $GREETING $GOPROXY; ls /run")
        assert said.split() == ["own", f"{ADDRESS}/t-token", "mooring"]
        async with asyncio.timeout(WITHIN_S), aclosing(runtime.watch()) as watch:
            async for seen in watch:
                if seen.id == wanted.id and seen.notices:
                    assert "the image has no socat" in seen.notices[0]
                    break


async def test_the_workspace_image_has_an_editor_and_go(harness: DockerHarness) -> None:
    """The shipped template runs code-server; go, git, make, node and sshd work in it as an ordinary user."""
    await asyncio.to_thread(harness.dockerd.build_workspace_image)
    built = harness.dockerd.cli("images", "-q", "--no-trunc", WORKSPACE_IMAGE)
    await asyncio.to_thread(harness.dockerd.build_workspace_image)
    assert harness.dockerd.cli("images", "-q", "--no-trunc", WORKSPACE_IMAGE) == built
    template: Template = parse((BUILTIN / "go-docker.toml").read_text(), "go-docker.toml")
    wanted = workspace()
    async with DockerRuntime(Settings(harness.home, Listen(), host=harness.dockerd.host)) as runtime:
        seen = await runtime.apply(wanted, template)
        await answers(harness, seen)
        script = """
            set -e
            mkdir app && cd app && go mod init example.org/app 2>/dev/null
            printf 'package main\\nfunc main() { println("it builds") }\\n' > main.go
            go build -o app . && ./app
            git --version && make --version && node --version
            ssh-keygen -q -t ed25519 -N '' -f key
            printf 'SSH-2.0-x\\r\\n' | /usr/sbin/sshd -i -f /dev/null -h $PWD/key || true
        """
        # A new container's build cache is empty: Go compiles its runtime and standard library first.
        said = await run(runtime, wanted, "bash", "-c", script, within_s=10 * WITHIN_S)
        assert "it builds" in said
        assert "\nv24." in said
        assert "SSH-2.0-OpenSSH" in said
