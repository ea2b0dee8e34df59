"""The proxy as a role behind a gateway: on a unix socket, with the tokens of workspaces in a file."""

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy import vcs
from mooring.server import door, goproxy_role
from mooring.server.goproxy_role import run
from mooring.server.lifetime import Ending, Lifetime
from mooring.settings import Home, Installation, Listen
from support.goproxy_roles import Role, role, wanted
from support.goupstream import Fault, Upstream
from support.modules import short_home

LIST = "/example.com/x/@v/list"
BIG = "example.com/big/@v/v1.0.0.zip"


@pytest.fixture
def home() -> Iterator[Home]:
    """A home of its own."""
    with short_home() as home:
        yield home


@pytest.fixture
def upstream(tmp_path: Path, home: Home) -> Iterator[Upstream]:
    """A local upstream with one module, which the settings of `home` name."""
    with Upstream(tmp_path / "upstream").serving() as serving:
        serving.publish("example.com/x", "v1.0.0")
        home.modules_settings.write_text(wanted(serving))
        yield serving


@pytest.mark.usefixtures("upstream")
async def test_a_workspace_is_served_by_its_token(home: Home) -> None:
    """A token that is written into the file opens at once, and the role ends when its lifetime does."""
    async with role(home) as it:
        await it.in_force()
        await it.until(LIST, 401)
        ann = it.token("ann")
        assert await it.until(ann + LIST, 200) == "v1.0.0\n"


async def test_what_is_wrong_is_said_until_it_is_mended(home: Home, upstream: Upstream) -> None:
    """A file with a mistake is refused by line and key on every path, and one that is mended is served by itself."""
    home.modules_settings.write_text("\nupstreams = 'https://x.example'\n")
    async with role(home) as it:
        said = "goproxy.toml:2: upstreams: there is no such key"
        assert said in await it.until(LIST, 503)
        assert said in await it.until("/-/healthz", 503)
        it.settings(wanted(upstream))
        await it.in_force()
        ann = it.token("ann")
        it.settings(wanted(upstream, "max_size = 'much'"))
        said = await it.until("/-/healthz", 503)
        assert "goproxy.toml:3: max_size: 'much' must be a number of bytes" in said
        assert "the settings before that are in force" in said
        assert await it.until(ann + LIST, 200) == "v1.0.0\n"


async def test_new_private_patterns_hold_without_a_restart(home: Home, upstream: Upstream) -> None:
    """A module that becomes private is refused from then on to who may not have it."""
    async with role(home) as it:
        ann = it.token("ann")
        await it.until(ann + LIST, 200)
        it.settings(wanted(upstream, "private = ['example.com/x']"))
        assert "is private" in await it.until(ann + LIST, 403)


async def test_without_a_go_command_it_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is answered with what is missing, and settings that need none are served at once."""
    monkeypatch.setenv("PATH", "/nowhere")
    async with role(home, editor=Path("/nowhere/editor/bin/code-server")) as it:
        assert "go env does not answer: install Go" in await it.until(LIST, 503)
        it.settings("upstream = 'off'\nsumdb = 'off'\n")
        await it.in_force()


async def test_it_can_be_switched_off(home: Home, upstream: Upstream) -> None:
    """Then nobody gets anything, by no way, until it is switched on again."""
    async with role(home) as it:
        ann = it.token("ann")
        await it.until(ann + LIST, 200)
        assert home.modules_policy.exists()
        it.settings("enabled = false\n")
        said = await it.until(ann + LIST, 503)
        assert "switched off in goproxy.toml" in said
        assert not home.modules_policy.exists()
        it.settings(wanted(upstream))
        await it.until(ann + LIST, 200)


async def test_it_leaves_no_socket(home: Home) -> None:
    """Nobody else may connect to its sockets, and they go with it."""
    home.modules_settings.write_text("upstream = 'off'\nsumdb = 'off'\n")
    async with role(home) as it:
        await it.in_force()
        assert home.modules_socket.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.run.rglob("*.sock*")] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("filter = 'rules.txt'", "rules.txt cannot be read"), ("sumdb = 'x+y+z'", "GOSUMDB: a key must be NAME+HASH+KEY")],
)
async def test_settings_that_cannot_work_change_nothing(home: Home, upstream: Upstream, wrong: str, said: str) -> None:
    """What can be read and not be served is told like any mistake, and the settings before it stay in force."""
    async with role(home) as it:
        await it.in_force()
        ann = it.token("ann")
        it.settings(f'upstream = "{upstream.url}"\n{wrong}\n')
        problem = await it.until("/-/healthz", 503)
        assert said in problem
        assert "the settings before that are in force" in problem
        assert await it.until(ann + LIST, 200) == "v1.0.0\n"
        assert home.modules_policy.exists()


async def test_new_settings_interrupt_nobody(home: Home, upstream: Upstream) -> None:
    """While one proxy follows another every request is answered, by the one or by the other."""
    async with role(home) as it:
        ann = it.token("ann")
        await it.until(ann + LIST, 200)
        it.settings(wanted(upstream, "private = ['example.com/x']"))
        async with asyncio.timeout(30):
            while (answer := await it.client.get(ann + LIST)).status_code == 200:
                await asyncio.sleep(0.001)
        assert (answer.status_code, "is private" in answer.text) == (403, True)


class Download:
    """A zip on its way through a role, which the upstream sends once `rest` is set."""

    def __init__(self, upstream: Upstream) -> None:
        self.right = upstream.publish("example.com/big", "v1.0.0", {"data.bin": os.urandom(700_000)})
        self.rest = threading.Event()
        upstream.faults[BIG] = Fault(pace=self._pace)
        self.received = b""
        self.begun = asyncio.Event()

    def _pace(self, at: int) -> None:
        if at > 300_000:
            self.rest.wait(60)

    async def run(self, it: Role, path: str) -> None:
        """Receive all of it."""
        async with it.client.stream("GET", path, timeout=60) as answer:
            async for part in answer.aiter_raw():
                self.received += part
                self.begun.set()


@pytest.fixture
def download(upstream: Upstream) -> Iterator[Download]:
    """One that has not begun."""
    found = Download(upstream)
    yield found
    found.rest.set()


@pytest.mark.parametrize("more", ["private = ['example.com']", "enabled = false"])
async def test_a_download_outlives_the_settings_it_began_with(
    home: Home, upstream: Upstream, download: Download, more: str
) -> None:
    """It goes on to its end while the new settings already hold for whoever asks now, and is counted."""
    async with role(home) as it, Tasks("clients") as clients:
        await it.in_force()
        ann = it.token("ann")
        receiving = clients.spawn("download", download.run(it, f"{ann}/{BIG}"))
        await asyncio.wait_for(download.begun.wait(), 30)
        it.settings(wanted(upstream, more))
        await it.until(ann + LIST, 503 if "enabled" in more else 403)
        # Nothing of it is received any more unless the old parts still work.
        assert len(download.received) < len(download.right)
        download.rest.set()
        await asyncio.wait_for(receiving, 30)
        assert download.received == download.right
        if "private" in more:
            seen = await it.client.get(f"{it.token('root', '*')}/-/pulls")
            assert ("example.com/big", 1) in [(pull["module"], pull["misses"]) for pull in seen.json()["pulls"]]


async def test_a_download_does_not_keep_old_settings_for_ever(
    home: Home, upstream: Upstream, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten minutes, here half a second, it is cut off, which its receiver sees."""
    monkeypatch.setattr(goproxy_role, "_LAST_DOWNLOADS_S", 0.5)
    async with role(home) as it, Tasks("clients") as clients:
        await it.in_force()
        receiving = clients.spawn("download", download.run(it, f"{it.token('ann')}/{BIG}"))
        await asyncio.wait_for(download.begun.wait(), 30)
        it.settings(wanted(upstream, "private = ['example.com/y']"))
        with pytest.raises(httpx2.RemoteProtocolError):
            await asyncio.wait_for(receiving, 30)
        await it.in_force()


async def test_a_download_does_not_keep_the_role(
    home: Home, upstream: Upstream, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role ends in its time also when somebody still receives what older settings allowed."""
    monkeypatch.setattr(door, "_GRACE_S", 0.5)
    async with Tasks("clients") as clients:
        async with role(home) as it:
            await it.in_force()
            _ = clients.spawn("download", download.run(it, f"{it.token('ann')}/{BIG}"))
            await asyncio.wait_for(download.begun.wait(), 30)
            it.settings(wanted(upstream, "private = ['example.com']"))
            await it.until(f"{it.token('bob')}{LIST}", 403)
        assert it.running.done()
        assert len(download.received) < len(download.right)


@pytest.mark.parametrize("more", ["max_clones = '1G'\nprivate = ['example.com']", "enabled = false"])
async def test_clones_are_bounded_by_the_newest_limit(
    home: Home, upstream: Upstream, download: Download, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """A clone that the settings before would remove stays, also while somebody still receives what they allowed."""
    monkeypatch.setattr(vcs, "_BOUND_EVERY_S", 0.05)
    clone = home.modules / "vcs/modcache/cache/vcs/abc"
    async with role(home) as it, Tasks("clients") as clients:
        it.settings(wanted(upstream, "max_clones = '10K'"))
        await it.in_force()
        ann = it.token("ann")
        await it.until(ann + LIST, 200)
        _keep_clone(clone)
        async with asyncio.timeout(30):
            while clone.exists():
                await asyncio.sleep(0.01)
        receiving = clients.spawn("download", download.run(it, f"{ann}/{BIG}"))
        await asyncio.wait_for(download.begun.wait(), 30)
        it.settings(wanted(upstream, more))
        await it.until(ann + LIST, 503 if "enabled" in more else 403)
        _keep_clone(clone)
        await asyncio.sleep(0.5)
        assert clone.exists()
        assert not receiving.done()
        download.rest.set()
        await asyncio.wait_for(receiving, 30)


def _keep_clone(folder: Path) -> None:
    """A clone of 100 KB, as the go command leaves one."""
    folder.mkdir(parents=True)
    (folder / "pack").write_bytes(os.urandom(100_000))
    folder.with_suffix(".info").write_text("git4:https://git.example.com/x\n")


async def test_nothing_is_uncounted_between_two_settings(home: Home, upstream: Upstream) -> None:
    """What the role serves and what the gateway tells it while settings change is counted, and kept for the next."""
    asked = 0
    report = b'[["ann", "example.com/x/@v/v1.0.0.mod", 1]]'
    async with role(home) as it:
        ann, admin = it.token("ann"), it.token("admin", "*")
        await it.until(ann + LIST, 200)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gateway:
            gateway.setblocking(False)  # noqa: FBT003 - socket's own parameter
            for number in range(3):
                # Of a pattern that the role goes by it is seen when the settings have changed.
                pattern = f"example.com/secret{number}"
                it.settings(wanted(upstream, f"private = ['{pattern}']"))
                async with asyncio.timeout(30):
                    while "is private" not in (await it.client.get(f"{ann}/{pattern}/@v/list")).text:
                        assert (await it.client.get(ann + LIST)).status_code == 200
                        gateway.sendto(report, str(home.modules_hits))
                        asked += 2
        # One that was asked for to know that it is up.
        assert await _counts(it, admin) == asked + 1
    async with role(home) as it:
        await it.in_force()
        assert await _counts(it, admin) == asked + 1


async def _counts(it: Role, admin: str) -> int:
    """How often somebody got a file of `example.com/x`; what was told a moment ago needs a turn of the loop."""
    await asyncio.sleep(0.1)
    seen = (await it.client.get(f"{admin}/-/pulls")).json()["pulls"]
    return sum(pull["requests"] for pull in seen if pull["module"] == "example.com/x")


async def test_a_late_predecessor_takes_nothing_with_it(home: Home) -> None:
    """A role whose supervisor was killed may end slowly; the next one waits for it, and then has its own sockets."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)  # noqa: FBT003 - socket's own parameter
        port = silent.getsockname()[1]
        home.modules_settings.write_text(f"upstream = 'http://127.0.0.1:{port}'\nsumdb = 'off'\n")
        async with role(home) as first, Tasks("asking") as tasks:
            await first.in_force()
            asking = tasks.spawn("asking", first.client.get(first.token("ann") + LIST))
            connection, _ = await asyncio.wait_for(loop.sock_accept(silent), 30)
            first.lifetime._end(Ending.orphaned)
            async with role(home) as second:
                await asyncio.sleep(0.5)
                assert not first.running.done()
                connection.close()
                silent.close()
                await asyncio.wait_for(asyncio.wait([first.running, asking]), 30)
                await second.in_force()
                assert home.modules_policy.exists()


async def test_rules_that_became_wrong_are_told(home: Home, upstream: Upstream) -> None:
    """A mistake in the filter file leaves the last rules in force, and says so where all trouble is shown."""
    rules = home.root / "rules.txt"
    rules.write_text("- example.com/x # take y\n")
    home.modules_settings.write_text(wanted(upstream, 'filter = "rules.txt"'))
    async with role(home) as it:
        await it.in_force()
        ann = it.token("ann")
        rules.write_text("? example.com/x\n")
        said = await it.until("/-/healthz", 503)
        assert "line 1 of the filter file must be" in said
        assert "the rules before that are in force" in said
        assert "take y" in await it.until(ann + LIST, 403)
        rules.write_text("+\n")
        await it.in_force()
        await it.until(ann + LIST, 200)


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
