"""What the gateway survives: killed workers, a killed master, a restarted agent, a configuration nginx refuses."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.errors import Misconfigured, Unavailable
from mooring.gateway.admin import Admin
from mooring.gateway.buckets import Change
from mooring.gateway.compile import place
from mooring.gateway.config import NginxSettings
from mooring.gateway.leftover import Record, end_leftover_nginx, master, orphans, record_path, write_record
from mooring.gateway.nginx import NginxSink
from mooring.gateway.processes import process, processes
from mooring.gateway.supervise import Nginx
from mooring.model.routes import Access, Filters, Redirect, Route
from mooring.routes.ports import Revision
from mooring.settings import Home
from support.certificates import self_signed
from support.following import until
from support.nginx import Gateway, gateway, listening, settings

ROUTE = Route(
    name="one", host="a.test", filters=Filters(redirect=Redirect(path="/there")), access=Access(kind="public")
)


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway with one route that answers with a redirect."""
    async with gateway(tmp_path) as started:
        await started.publish(ROUTE)
        yield started


async def answered(edge: Gateway, *, within_s: float) -> None:
    """Wait until the route answers again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if (await edge.get("a.test")).status == 302:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_killed_workers_are_replaced_and_keep_the_routes(edge: Gateway) -> None:
    """The table is shared memory: new workers serve it without anybody sending it again, and the deaths are counted."""
    async with asyncio.timeout(5):
        while len(before := (await edge.sink.read()).workers) != 2:
            await asyncio.sleep(0.05)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await answered(edge, within_s=5)
    assert await edge.sink.applied() == Revision("e", 1)
    async with asyncio.timeout(5):
        while len(after := (await edge.sink.read()).workers) != 2 or set(after) & set(before):
            await asyncio.sleep(0.1)
    assert (await edge.sink.read()).restarts == 2


async def test_a_disk_that_takes_nothing_for_a_while_is_outlived(edge: Gateway) -> None:
    """An nginx that dies meanwhile is started as soon as its configuration can be written."""
    folder = edge.nginx.settings.folder / "tmp"
    moved = folder.rename(folder.with_name("moved"))
    folder.write_text("no folder can be made here")
    before = edge.nginx.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(5):
        while process(before) is not None:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    folder.unlink()
    moved.rename(folder)
    async with asyncio.timeout(15):
        published = False
        while not published:
            await asyncio.sleep(0.05)
            with contextlib.suppress(Unavailable):
                await edge.publish(ROUTE, complete=True)
                published = True
    await answered(edge, within_s=5)


async def test_a_change_of_all_that_a_table_can_hold_is_taken(edge: Gateway) -> None:
    """To take a full table away names each of its routes: a refused frame would be sent again for ever."""
    routes = [
        ROUTE.model_copy(update={"name": f"{n:0250}", "host": f"{n:063}.{n:063}.{n:063}.x"}) for n in range(20_000)
    ]
    change = Change(deletes=[place(route).bucket for route in routes], gone=[f"test/{route.name}" for route in routes])
    assert len("".join(change.deletes + change.gone)) > 8 * 2**20
    admin = Admin(edge.home.gateway_socket)
    frame = {"op": "apply", "revision": "e 2", "epoch": "e", "complete": False, "sets": {}}
    assert await admin.ask(frame | asdict(change)) == {"ok": True}
    await admin.close()
    assert await edge.sink.applied() == Revision("e", 2)


async def test_a_killed_master_is_replaced_on_the_same_port(edge: Gateway) -> None:
    """Its workers are killed too (nobody could renew their table), and the next nginx begins without one."""
    workers = (await edge.sink.read()).workers
    await edge.killed()
    assert all(process(pid) is None for pid in workers)
    assert await edge.sink.applied() is None
    assert (await edge.get("a.test")).status == 404
    await edge.publish(ROUTE, complete=True)
    assert (await edge.get("a.test")).status == 302
    assert edge.nginx.restarts == 1


async def test_the_next_agent_adopts_a_running_nginx(edge: Gateway) -> None:
    """An agent that comes back finds nginx with its table and open connections, and starts none."""
    reader, writer = await edge.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n")
    second = Nginx(edge.nginx.settings, [edge.listener])
    await second.start()
    assert second.pid == edge.nginx.pid
    sink = NginxSink(edge.home.gateway_socket)
    assert await sink.applied() == Revision("e", 1)
    await sink.close()
    writer.write(b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 302")
    writer.close()


async def test_an_nginx_of_other_settings_is_not_adopted(tmp_path: Path) -> None:
    """A changed configuration needs a new nginx: the old one is ended, the port passes on."""
    with listening() as listener:
        port = listener.getsockname()[1]
        first = Nginx(settings(tmp_path, port), [listener])
        await first.start()
        second = Nginx(settings(tmp_path, port, workers=1), [listener])
        await second.start()
        assert second.pid != first.pid
        assert first.pid is not None
        assert process(first.pid) is None
        await first._reap()
        sink = NginxSink(second.settings.home.gateway_socket)
        assert await sink.applied() is None
        await sink.close()
        await second.stop()


async def test_a_leftover_is_ended_before_the_port_is_bound(tmp_path: Path) -> None:
    """After everything was killed at once the supervisor clears what still holds the port."""
    with listening() as listener:
        port = listener.getsockname()[1]
        nginx = Nginx(settings(tmp_path, port), [listener])
        await nginx.start()
    assert nginx.pid is not None
    os.kill(nginx.pid, signal.SIGKILL)
    assert orphans(nginx.settings.home)
    await asyncio.to_thread(end_leftover_nginx, nginx.settings.home)
    assert not orphans(nginx.settings.home)
    await nginx.stop()


async def test_one_that_nobody_recorded_is_ended(tmp_path: Path) -> None:
    """An agent that is killed right after it started nginx has not said which; its workers are found without it too."""
    with listening() as listener:
        first = Nginx(settings(tmp_path, listener.getsockname()[1]), [listener])
        await first.start()
        record_path(first.settings.home).unlink()
        await until(lambda: len(orphans(first.settings.home)) == 1 + first.settings.workers)
        second = Nginx(first.settings, [listener])
        await second.start()
        assert first.pid is not None
        assert process(first.pid) is None
        await first._reap()
        assert second.pid is not None
        record_path(first.settings.home).unlink()
        os.kill(second.pid, signal.SIGKILL)
        await until(lambda: len(orphans(first.settings.home)) == first.settings.workers)
        await asyncio.to_thread(end_leftover_nginx, first.settings.home)
        assert not orphans(first.settings.home)
        await second.stop()


@pytest.mark.parametrize(("name", "user"), [("nginx", "nobody"), ("other", "root")])
async def test_a_record_makes_root_end_nothing_else(tmp_path: Path, name: str, user: str) -> None:
    """Whoever owns the home could write any number into it: what is another's, or no nginx, is left alone."""
    home = Home(tmp_path)
    home.gateway.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        program = shutil.copy("/bin/sleep", Path(folder, name))
        bystander = subprocess.Popen([program, "1000"], user=user, start_new_session=True, cwd=home.gateway)
        try:
            found = process(bystander.pid)
            assert found is not None
            assert found.name == name
            write_record(home, Record(found.pid, found.started, "x"))
            await asyncio.to_thread(end_leftover_nginx, home)
            assert (orphans(home), master(home), bystander.poll()) == ([], None, None)
        finally:
            bystander.kill()
            bystander.wait()


async def test_a_process_of_any_name_stops_no_search(tmp_path: Path) -> None:
    """Names are bytes, cut off after fifteen: somebody's that is no UTF-8 would keep nginx from being started again."""
    name = "open('/proc/self/comm', 'wb').write(bytes([255, 41, 32, 10, 200])); print(flush=True); input()"
    bystander = subprocess.Popen([sys.executable, "-c", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert bystander.stdout is not None
    bystander.stdout.readline()
    found = process(bystander.pid)
    assert found is not None
    assert (found.pid, found.uid, found.group) == (bystander.pid, os.geteuid(), os.getpgrp())
    assert orphans(Home(tmp_path)) == []
    bystander.communicate(b"\n")


async def test_a_configuration_that_nginx_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    """The operator reads what nginx printed."""
    with listening() as listener:
        nginx = Nginx(settings(tmp_path, listener.getsockname()[1], trusted_ca=tmp_path / "none.crt"), [listener])
        with pytest.raises(Misconfigured, match=r"none\.crt"):
            await nginx.start()
        await nginx.stop()


async def test_a_refusal_while_it_runs_is_told_once(tmp_path: Path) -> None:
    """What nginx printed follows at once, and goes when it starts again."""
    authority = tmp_path / "ca.crt"
    authority.write_bytes(self_signed("ca.test")[0])
    with listening() as listener:
        nginx = Nginx(settings(tmp_path, listener.getsockname()[1], trusted_ca=authority), [listener])
        await nginx.start()
        async with Tasks("test") as tasks:
            tasks.forever("nginx", nginx.run())
            try:
                authority.rename(tmp_path / "away.crt")
                assert nginx.pid is not None
                os.kill(nginx.pid, signal.SIGKILL)
                await until(nginx.problems)
                assert nginx.problems()[0].startswith("nginx does not start: nginx: [emerg] ")
                (tmp_path / "away.crt").rename(authority)
                await until(lambda: not nginx.problems())
            finally:
                await nginx.stop()


async def test_one_that_cannot_be_noted_is_ended(tmp_path: Path) -> None:
    """A full disk: nobody would find it again, and the next would serve beside it on the same port."""
    with listening() as listener:
        nginx = Nginx(settings(tmp_path, listener.getsockname()[1]), [listener])
        obstacle = record_path(nginx.settings.home).with_suffix(".new")
        obstacle.mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            await nginx.start()
        assert nginx.pid is not None
        unnoted = nginx.pid
        await until(lambda: not any(found.group == unnoted for found in processes()))
        obstacle.rmdir()
        await nginx.start()
        assert master(nginx.settings.home) == process(nginx.pid)
        await nginx.stop()


async def test_a_death_while_the_disk_is_full_is_mended_after_it(edge: Gateway) -> None:
    """The next nginx is tried again and again, and told why; the one that stays is the one that is noted."""
    obstacle = record_path(edge.home).with_suffix(".new")
    obstacle.mkdir()
    before = edge.nginx.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until(lambda: edge.nginx.pid not in {None, before} and edge.nginx.restarts == 1)
    await until(edge.nginx.problems)
    assert str(obstacle) in edge.nginx.problems()[0]
    await asyncio.sleep(0.3)
    obstacle.rmdir()
    await until(lambda: master(edge.home) is not None)
    await until(lambda: not edge.nginx.problems())
    async with asyncio.timeout(10):
        while not await edge._answers():
            await asyncio.sleep(0.02)
    assert process(edge.nginx.pid or 0) == master(edge.home)
    await edge.publish(ROUTE, complete=True)
    assert (await edge.get("a.test")).status == 302


@pytest.mark.parametrize("name", ['a"b', "a;b", "a$b", "a{b", "a\nb", "a\\b", "a'b"])
def test_a_setting_cannot_become_syntax(tmp_path: Path, name: str) -> None:
    """A path or a name that nginx or Lua would read as syntax is refused by name."""
    found: NginxSettings = settings(tmp_path / name, 1)
    with pytest.raises(Misconfigured, match="must hold no quote"):
        Nginx(found, [])._prepare()


async def test_supervision_ends_with_its_owner(tmp_path: Path) -> None:
    """After stop nothing of nginx is left, also when its master had just been killed."""
    with listening() as listener:
        nginx = Nginx(settings(tmp_path, listener.getsockname()[1]), [listener])
        await nginx.start()
        async with Tasks("test") as tasks:
            tasks.spawn("nginx", nginx.run())
            assert nginx.pid is not None
            os.kill(nginx.pid, signal.SIGKILL)
            await nginx.stop()
        assert not orphans(nginx.settings.home)
