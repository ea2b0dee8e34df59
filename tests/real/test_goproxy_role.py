"""The proxy as a role behind a gateway: on a unix socket, with the tokens of workspaces in a file."""

import asyncio
import fcntl
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy import access
from mooring.server.goproxy_role import run
from mooring.server.lifetime import Ending, Lifetime
from mooring.settings import Home, Installation, Listen, cache
from support.goupstream import Upstream


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a short folder: sockets have short names."""
    folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    (folder / "run").mkdir()
    yield Home(folder)
    shutil.rmtree(folder)


@dataclass
class Role:
    """The role in this process."""

    home: Home
    client: httpx2.AsyncClient
    lifetime: Lifetime
    running: asyncio.Task[None]

    async def settings(self, text: str) -> None:
        """Write goproxy.toml, as an editor saves it."""
        beside = self.home.root / "goproxy.toml.new"
        beside.write_text(text)
        beside.replace(self.home.modules_settings)

    async def until(self, path: str, status: int) -> str:
        """The answer's text, once it has that status."""
        async with asyncio.timeout(30):
            while True:
                with suppress(httpx2.ConnectError):
                    answer = await self.client.get(path)
                    if answer.status_code == status:
                        return answer.text
                await asyncio.sleep(0.05)


@asynccontextmanager
async def role(home: Home, editor: Path | None = None) -> AsyncIterator[Role]:
    """The role, until the end of the block."""
    installation = Installation(home, Listen(), editor=editor or cache() / "editor/bin/code-server")
    lifetime = Lifetime(None)
    transport = httpx2.AsyncHTTPTransport(uds=str(home.modules_socket))
    async with Tasks("test") as tasks, httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        running = tasks.spawn("role", run(installation, lifetime))
        async with asyncio.timeout(30):
            while not home.modules_socket.exists():
                await asyncio.sleep(0.01)
        yield Role(home, client, lifetime, running)
        lifetime._end(Ending.stop)
        await asyncio.wait_for(running, 20)


def wanted(upstream: Upstream) -> str:
    """Settings that need nothing but this upstream."""
    return f'upstream = "{upstream.url}"\nsumdb = "{upstream.sumdb}"\n'


async def test_a_workspace_is_served_by_its_token(tmp_path: Path, home: Home) -> None:
    """A token that is written into the file opens at once, and the role ends when its lifetime does."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text(wanted(upstream))
        async with role(home) as it:
            await it.until("/-/healthz", 200)
            await it.until("/example.com/x/@v/list", 401)
            token = access.make(home.modules_tokens, "ann", ())
            assert await it.until(f"/t-{token}/example.com/x/@v/list", 200) == "v1.0.0\n"


async def test_what_is_wrong_is_said_until_it_is_mended(tmp_path: Path, home: Home) -> None:
    """A file with a mistake is refused by line and key on every path, and one that is mended is served by itself."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text("\nupstreams = 'https://x.example'\n")
        async with role(home) as it:
            said = "goproxy.toml:2: upstreams: there is no such key"
            assert said in await it.until("/example.com/x/@v/list", 503)
            assert said in await it.until("/-/healthz", 503)
            await it.settings(wanted(upstream))
            await it.until("/-/healthz", 200)
            token = access.make(home.modules_tokens, "ann", ())
            await it.settings(wanted(upstream) + "max_size = 'much'\n")
            said = await it.until("/-/healthz", 503)
            assert "goproxy.toml:3: max_size: 'much' must be a number of bytes" in said
            assert "the settings before that are in force" in said
            assert await it.until(f"/t-{token}/example.com/x/@v/list", 200) == "v1.0.0\n"


async def test_new_private_patterns_hold_without_a_restart(tmp_path: Path, home: Home) -> None:
    """A module that becomes private is refused from then on to who may not have it."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text(wanted(upstream))
        async with role(home) as it:
            token = access.make(home.modules_tokens, "ann", ())
            await it.until(f"/t-{token}/example.com/x/@v/list", 200)
            await it.settings(wanted(upstream) + "private = ['example.com/x']\n")
            assert "is private" in await it.until(f"/t-{token}/example.com/x/@v/list", 403)


async def test_without_a_go_command_it_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is answered with what is missing, and settings that need none are served at once."""
    monkeypatch.setenv("PATH", "/nowhere")
    async with role(home, editor=Path("/nowhere/editor/bin/code-server")) as it:
        assert "go env does not answer: install Go" in await it.until("/example.com/x/@v/list", 503)
        await it.settings("upstream = 'off'\nsumdb = 'off'\n")
        await it.until("/-/healthz", 200)


async def test_it_can_be_switched_off(tmp_path: Path, home: Home) -> None:
    """Then nobody gets anything, by no way, until it is switched on again."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text(wanted(upstream))
        async with role(home) as it:
            token = access.make(home.modules_tokens, "ann", ())
            await it.until(f"/t-{token}/example.com/x/@v/list", 200)
            assert home.modules_policy.exists()
            await it.settings("enabled = false\n")
            said = await it.until(f"/t-{token}/example.com/x/@v/list", 503)
            assert "switched off in goproxy.toml" in said
            assert not home.modules_policy.exists()
            await it.settings(wanted(upstream))
            await it.until(f"/t-{token}/example.com/x/@v/list", 200)


async def test_it_leaves_no_socket(home: Home) -> None:
    """Nobody else may connect to its sockets, and they go with it."""
    home.modules_settings.write_text("upstream = 'off'\nsumdb = 'off'\n")
    async with role(home) as it:
        await it.until("/-/healthz", 200)
        assert home.modules_socket.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.run.rglob("*.sock*")] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("filter = 'rules.txt'", "rules.txt cannot be read"), ("sumdb = 'x+y+z'", "GOSUMDB: a key must be NAME+HASH+KEY")],
)
async def test_settings_that_cannot_work_change_nothing(tmp_path: Path, home: Home, wrong: str, said: str) -> None:
    """What can be read and not be served is told like any mistake, and the settings before it stay in force."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        good = f'upstream = "{upstream.url}"\n'
        home.modules_settings.write_text(f'{good}sumdb = "{upstream.sumdb}"\n')
        async with role(home) as it:
            await it.until("/-/healthz", 200)
            token = access.make(home.modules_tokens, "ann", ())
            await it.settings(good + wrong + "\n")
            problem = await it.until("/-/healthz", 503)
            assert said in problem
            assert "the settings before that are in force" in problem
            assert await it.until(f"/t-{token}/example.com/x/@v/list", 200) == "v1.0.0\n"
            assert home.modules_policy.exists()


async def test_new_settings_interrupt_nobody(tmp_path: Path, home: Home) -> None:
    """While one proxy follows another every request is answered, by the one or by the other."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text(wanted(upstream))
        async with role(home) as it:
            token = access.make(home.modules_tokens, "ann", ())
            await it.until(f"/t-{token}/example.com/x/@v/list", 200)
            await it.settings(wanted(upstream) + "private = ['example.com/x']\n")
            async with asyncio.timeout(30):
                while (answer := await it.client.get(f"/t-{token}/example.com/x/@v/list")).status_code == 200:
                    await asyncio.sleep(0.001)
            assert (answer.status_code, "is private" in answer.text) == (403, True)


async def test_a_late_predecessor_takes_nothing_with_it(home: Home) -> None:
    """A role whose supervisor was killed may end slowly; the next one waits for it, and then has its own sockets."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)  # noqa: FBT003 - socket's own parameter
        port = silent.getsockname()[1]
        home.modules_settings.write_text(f"upstream = 'http://127.0.0.1:{port}'\nsumdb = 'off'\n")
        async with role(home) as first, Tasks("asking") as tasks:
            await first.until("/-/healthz", 200)
            token = access.make(home.modules_tokens, "ann", ())
            path = f"/t-{token}/example.com/x/@v/list"
            asking = tasks.spawn("asking", first.client.get(path))
            connection, _ = await asyncio.wait_for(loop.sock_accept(silent), 30)
            first.lifetime._end(Ending.orphaned)
            async with role(home) as second:
                await asyncio.sleep(0.5)
                assert not first.running.done()
                connection.close()
                silent.close()
                await asyncio.wait_for(asyncio.wait([first.running, asking]), 30)
                await second.until("/-/healthz", 200)
                assert home.modules_policy.exists()


async def test_rules_that_became_wrong_are_told(tmp_path: Path, home: Home) -> None:
    """A mistake in the filter file leaves the last rules in force, and says so where all trouble is shown."""
    rules = home.root / "rules.txt"
    rules.write_text("- example.com/x # take y\n")
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text(wanted(upstream) + 'filter = "rules.txt"\n')
        async with role(home) as it:
            await it.until("/-/healthz", 200)
            token = access.make(home.modules_tokens, "ann", ())
            rules.write_text("? example.com/x\n")
            said = await it.until("/-/healthz", 503)
            assert "line 1 of the filter file must be" in said
            assert "the rules before that are in force" in said
            assert "take y" in await it.until(f"/t-{token}/example.com/x/@v/list", 403)
            rules.write_text("+\n")
            await it.until("/-/healthz", 200)
            await it.until(f"/t-{token}/example.com/x/@v/list", 200)


async def test_it_can_be_told_to_end_while_it_waits(home: Home) -> None:
    """A predecessor that hangs does not keep its successor from ending."""
    with (home.run / "goproxy.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lifetime = Lifetime(None)
        async with Tasks("test") as tasks:
            running = tasks.spawn("role", run(Installation(home, Listen(), Path("/nowhere/bin/editor")), lifetime))
            await asyncio.sleep(0.3)
            assert not home.modules_socket.exists()
            lifetime._end(Ending.stop)
            await asyncio.wait_for(running, 20)
