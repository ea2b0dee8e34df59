"""Go modules behind the gateway: what is kept leaves nginx without the role, for those who may have it, and no others.

Where no role runs an answer of 200 came from the store, and 503 says that the role would have been asked.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mooring.goproxy import access
from mooring.goproxy.disk import DiskStore
from mooring.goproxy.eviction import Eviction
from mooring.goproxy.names import Ask, Kind
from mooring.goproxy.pins import Pins
from mooring.model.routes import Access, Backend, Route
from mooring.settings import Home
from support.modules import Front, front, short_home
from support.nginx import CONSOLE, Answer, Request, backend

INFO = b'{"Version":"v1.0.0","Time":"2026-01-02T03:04:05Z"}'
SECRET = "git.example.com/team/secret"
X = "/example.com/x/@v/v1.0.0"


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a short folder."""
    with short_home() as found:
        yield found


@pytest.fixture
async def gate(home: Home) -> AsyncIterator[Front]:
    """A gateway with a store and without a role."""
    async with front(home) as found:
        fill(found)
        yield found


@pytest.fixture
async def gate_of_one(home: Home) -> AsyncIterator[Front]:
    """The same with one worker, which has looked for all when it has looked."""
    async with front(home, workers=1) as found:
        fill(found)
        yield found


def fill(gate: Front) -> None:
    """Put three modules into the store."""
    for module in ("example.com/x", "example.com/old/x", SECRET):
        gate.keep(module, "v1.0.0", Kind.info, INFO)
        gate.keep(module, "v1.0.0", Kind.mod, b"module x\n")
        gate.keep(module, "v1.0.0", Kind.zip, b"zip" * 1000)


async def test_a_kept_file_needs_no_role(gate: Front) -> None:
    """With the role dead, info, mod and zip go on being served to whoever has a token, as path, password or bearer."""
    gate.clear()
    token = gate.token("ann")
    basic = access.base64.b64encode(f"ann:{token}".encode()).decode()
    for kind in ("info", "mod", "zip"):
        assert (await gate.get(f"{X}.{kind}", token=token)).status == 200
        assert (await gate.get(f"{X}.{kind}", Authorization=f"Basic {basic}")).status == 200
        assert (await gate.get(f"{X}.{kind}", Authorization=f"Bearer {token}")).status == 200
        assert (await gate.get(f"/cached-only{X}.{kind}", token=token)).status == 200
    assert (await gate.get(f"{X}.info", token=token)).body == INFO
    whole = f"GET http://{gate.gateway.authority(CONSOLE)}/goproxy/t-{token}{X}.info HTTP/1.1\r\n"
    whole += f"Host: {gate.gateway.authority(CONSOLE)}\r\nConnection: close\r\n\r\n"
    assert (await gate.gateway.raw(whole.encode())).body == INFO
    answer = await gate.get(f"{X}.info", token=token, method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(len(INFO)), b"")
    # A range is GET's alone.
    for method, status, length in (("GET", 206, "16"), ("HEAD", 200, "3000")):
        answer = await gate.get(f"{X}.zip", token=token, method=method, Range="bytes=5-20")
        assert (answer.status, answer.headers["content-length"]) == (status, length)


async def test_whoever_is_not_known_is_left_to_the_role(gate: Front) -> None:
    """No token, a wrong one, an empty one and the wrong half of a password open nothing."""
    gate.clear()
    token = gate.token("ann")
    swapped = access.base64.b64encode(f"{token}:ann".encode()).decode()
    assert (await gate.get(f"{X}.info")).status == 503
    assert (await gate.get(f"{X}.info", token=token[:-1])).status == 503
    assert (await gate.get(f"/t-{X}.info")).status == 503
    for value in (f"Basic {swapped}", f"Bearer  x{token}", f"Digest {token}", "Basic", "Basic ====", token):
        assert (await gate.get(f"{X}.info", Authorization=value)).status == 503
    # The path's token is the one that counts.
    assert (await gate.get(f"{X}.info", token="wrong", Authorization=f"Bearer {token}")).status == 503


async def test_lines_that_are_no_tokens_open_nothing(gate: Front) -> None:
    """A token that somebody commented out, wrote something behind, or has not written to its end is not known."""
    gate.clear()
    token = gate.token("ann", "git.example.com")
    (line,) = gate.home.modules_tokens.read_text().splitlines()
    name, digest, private = line.split()
    assert (await gate.get(f"{X}.info", token=token)).status == 200
    for text in (
        f"# {line}",
        f"#{line}",
        f"{name} {digest}-revoked",
        f"{name} {digest}x {private}",
        f"{line} old",
        f"{name} {digest[:-1]}",
        f"{name}{digest}",
        digest,
        line[:-3],
    ):
        gate.home.modules_tokens.write_text(f"{text}\n" if text != line[:-3] else text)
        await gate.until(503, f"{X}.info", token=token)
        gate.home.modules_tokens.write_text(f"{name} {digest}\n")
        await gate.until(200, f"{X}.info", token=token)


async def test_a_private_module_is_for_its_own(gate: Front) -> None:
    """A private module is served to the subject whose patterns cover it; everybody else is refused by the role."""
    gate.clear(private=("git.example.com/*", "*.corp.example"))
    owner, all_, other = gate.token("a", "git.example.com/team"), gate.token("b", "*"), gate.token("c", "git.other/x")
    path = f"/{SECRET}/@v/v1.0.0.zip"
    assert (await gate.get(path, token=owner)).status == 200
    assert (await gate.get(path, token=all_)).status == 200
    assert (await gate.get(path, token=other)).status == 503
    assert (await gate.get(path, token=gate.token("d"))).status == 503
    assert (await gate.get(f"{X}.zip", token=other)).status == 200


async def test_a_pattern_that_only_python_reads_is_left_to_it(gate: Front) -> None:
    """A character class in a pattern that may cover the module sends the request to the role."""
    gate.clear(private=("git.example.co[m]",))
    token = gate.token("a", "*")
    assert (await gate.get(f"/{SECRET}/@v/v1.0.0.zip", token=token)).status == 503
    gate.clear(private=("git.example.com",))
    await gate.until(200, f"/{SECRET}/@v/v1.0.0.zip", token=token)
    assert (await gate.get(f"/{SECRET}/@v/v1.0.0.zip", token=gate.token("b", "git.example.co[m]"))).status == 503


async def test_a_host_that_begins_like_a_token_is_none(gate: Front) -> None:
    """Its modules are served as all others are, with a token before it and without."""
    gate.keep("t-example.com/x", "v1.0.0", Kind.info, b'{"Version":"v1.0.0"}')
    gate.clear(open_to_all=True)
    await gate.until(200, "/t-example.com/x/@v/v1.0.0.info")
    assert (await gate.get("/t-wrong.example/example.com/x/@v/v1.0.0.info")).status == 503
    gate.clear()
    await gate.until(503, "/t-example.com/x/@v/v1.0.0.info")
    await gate.until(200, "/t-example.com/x/@v/v1.0.0.info", token=gate.token("ann"))


async def test_an_open_proxy_needs_no_token(gate: Front) -> None:
    """Where no tokens are asked for, everybody gets everything, and a token in the path does no harm."""
    gate.clear(open_to_all=True, private=("git.example.com",))
    assert (await gate.get(f"/{SECRET}/@v/v1.0.0.zip")).status == 200
    assert (await gate.get(f"{X}.zip", token="whatever")).status == 200


async def test_a_revoked_token_ends_within_a_second(gate: Front) -> None:
    """A token that is taken out of the file opens nothing a second later, with nobody there to tell."""
    gate.clear()
    token, other = gate.token("ann"), gate.token("bob")
    for _ in range(8):
        assert (await gate.get(f"{X}.info", token=token)).status == 200
    access.revoke(gate.home.modules_tokens, "ann")
    await asyncio.sleep(1)
    for _ in range(8):
        assert (await gate.get(f"{X}.info", token=token)).status == 503
        assert (await gate.get(f"{X}.info", token=other)).status == 200
    gate.home.modules_tokens.unlink()
    await asyncio.sleep(1)
    assert (await gate.get(f"{X}.info", token=other)).status == 503


async def test_rules_that_are_plain_are_applied(gate: Front, tmp_path: Path) -> None:
    """Includes are served; excludes, direct ones and those about versions are left to the role, which has the words."""
    rules = tmp_path / "filter"
    rules.write_text("-\n+ example.com\n- example.com/old # no\n")
    gate.clear(filter=rules)
    token = gate.token("ann")
    assert (await gate.get(f"{X}.info", token=token)).status == 200
    assert (await gate.get("/example.com/old/x/@v/v1.0.0.info", token=token)).status == 503
    assert (await gate.get(f"/{SECRET}/@v/v1.0.0.info", token=token)).status == 503
    for text in ("+ example.com/x v1\n", "D example.com/x\n", "+ example.com/[x]\n", "- example.com/x <v1.4.0\n"):
        rules.write_text(text)
        gate.clear(filter=rules)
        await gate.until(503, f"{X}.info", token=token)
        rules.write_text("+\n")
        gate.clear(filter=rules)
        await gate.until(200, f"{X}.info", token=token)


async def test_rules_that_changed_count_no_more(gate: Front, tmp_path: Path) -> None:
    """A filter file that changes while no role reads it sends everything to the role."""
    rules = tmp_path / "filter"
    rules.write_text("+ example.com\n")
    gate.clear(filter=rules)
    token = gate.token("ann")
    assert (await gate.get(f"{X}.info", token=token)).status == 200
    rules.write_text("- example.com\n")
    await asyncio.sleep(1)
    assert (await gate.get(f"{X}.info", token=token)).status == 503


async def test_without_what_the_role_wrote_down_nothing_is_served(gate_of_one: Front) -> None:
    """A policy that is absent, half, of another form, or about another store sends everything to the role."""
    gate = gate_of_one
    token = gate.token("ann")
    assert (await gate.get(f"{X}.info", token=token)).status == 503
    gate.clear()
    await gate.until(200, f"{X}.info", token=token)
    right = json.loads(gate.home.modules_policy.read_text())
    wrong = (
        json.dumps(right)[:-5],
        json.dumps(right | {"format": 2}),
        json.dumps(right | {"rules": [{}]}),
        json.dumps(right | {"store": "/elsewhere"}),
        json.dumps({key: value for key, value in right.items() if key != "tokens"}),
        json.dumps({key: value for key, value in right.items() if key != "filter"}),
        json.dumps(right | {"private": "*"}),
        json.dumps(right | {"rules": [1]}),
        json.dumps(right | {"private": [{}]}),
        json.dumps(right | {"tokens": 7}),
        json.dumps(right | {"filter": 7}),
        "[]",
        "",
    )
    for text in wrong:
        gate.home.modules_policy.write_text(text)
        await gate.until(503, f"{X}.info", token=token)
        # Neither does what was allowed before come back between two looks.
        assert {(await gate.get(f"{X}.info", token=token)).status for _ in range(10)} == {503}
        gate.clear()
        await gate.until(200, f"{X}.info", token=token)
    gate.home.modules_policy.unlink()
    await gate.until(503, f"{X}.info", token=token)
    assert "t-" not in gate_log(gate)


async def test_only_whole_files_of_the_store_are_served(gate: Front, tmp_path: Path) -> None:
    """A link, a folder and a file that lost its bytes are no hits, whatever they are called."""
    gate.clear(open_to_all=True)
    outside = tmp_path / "passwd"
    outside.write_bytes(b"root")
    folder = gate.store / "example.com/x/@v"
    (folder / "v1.0.1.info").symlink_to(outside)
    (folder / "v1.0.2.zip").mkdir()
    (folder / "v1.0.3.mod").write_bytes(b"")
    os.mkfifo(folder / "v1.0.4.mod")
    for name in ("v1.0.1.info", "v1.0.2.zip", "v1.0.3.mod", "v1.0.4.mod", "v1.0.5.mod"):
        assert (await gate.get(f"/example.com/x/@v/{name}")).status == 503


async def test_a_file_that_goes_away_meanwhile_is_left_to_the_role(gate: Front) -> None:
    """What comes and goes between the look and the opening is a hit or the role's: never a 404 of nginx."""
    gate.clear(open_to_all=True)
    path = gate.keep("example.com/x", "v1.9.0", Kind.mod, b"module x\n")
    aside = path.with_name("aside")
    ended = False

    def toggle() -> None:
        while not ended:
            path.rename(aside)
            aside.rename(path)

    toggling = asyncio.get_running_loop().run_in_executor(None, toggle)
    try:
        found = {(await gate.get("/example.com/x/@v/v1.9.0.mod")).status for _ in range(300)}
    finally:
        # A thread that toggles on would keep the interpreter from its end.
        ended = True
        await toggling
    # How often each of the two is met is chance; that there is no third is what matters.
    assert found <= {200, 503}


async def test_a_young_list_is_served_and_an_old_one_is_not(gate: Front) -> None:
    """A list is a hit for its lifetime, also an empty one, and never where rules may hide versions."""
    gate.clear(open_to_all=True)
    file = gate.store / "example.com/x/@v/list"
    file.write_bytes(b"v1.0.0\n")
    answer = await gate.get("/example.com/x/@v/list")
    assert (answer.status, answer.body, "cache-control" in answer.headers) == (200, b"v1.0.0\n", False)
    file.write_bytes(b"")
    assert (await gate.get("/example.com/x/@v/list")).status == 200
    old = time.time() - 31
    os.utime(file, (old, old))
    assert (await gate.get("/example.com/x/@v/list")).status == 503
    ahead = time.time() + 1000
    os.utime(file, (ahead, ahead))
    assert (await gate.get("/example.com/x/@v/list")).status == 503


async def test_what_was_served_lately_is_known_to_the_eviction(gate: Front) -> None:
    """A hit renews the moment of last use where the kernel would not: within the day that `relatime` keeps still."""
    gate.clear(open_to_all=True)
    file = gate.store / "example.com/x/@v/v1.0.0.zip"
    other = gate.store / "example.com/old/x/@v/v1.0.0.zip"
    now = time.time()
    for each in (file, other):
        # Read after it was written and within a day: neither relatime nor noatime would touch it.
        os.utime(each, (now - 7200, now - 9000))
    await gate.get(f"{X}.zip", method="HEAD")
    store = DiskStore(gate.home.modules)
    done = await Eviction(store, Pins(gate.home.root / "pins"), _returns).run(9000, dry_run=True)
    assert [item.ask.label for item in done.evicted] == ["example.com/old/x@v1.0.0"]
    assert abs(file.stat().st_atime - time.time()) < 60
    assert abs(file.stat().st_mtime - (now - 9000)) < 1
    assert abs(other.stat().st_atime - (now - 7200)) < 1


async def _returns(_wanted: Ask) -> None:
    """Everything can come back."""


async def test_no_token_comes_into_a_log(gate: Front) -> None:
    """A role that is away, a request that is broken and a policy that is none write no token into nginx's log."""
    gate.clear()
    token = gate.token("ann")
    path = f"/goproxy/t-{token}{X}"
    host = f"Host: {CONSOLE}:{gate.gateway.port}\r\n"
    requests = (
        f"GET {path}.none HTTP/1.1\r\n{host}Connection: close\r\n\r\n",
        f"GET {path}.info HTTP/1.1\r\n{host}{host}\r\n\r\n",
        f"GET {path}.info HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n",
        f"GET {path}.info HTTP/9.1\r\n{host}\r\n\r\n",
        f"GET {path}%00.info HTTP/1.1\r\n{host}\r\n\r\n",
        f"GET {path}.info HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n",
        f"GET {path}.info HTTP/1.1\r\n{host}X: {'x' * 40000}\r\n\r\n",
        f"GET {path}{'x' * 40000} HTTP/1.1\r\n{host}\r\n\r\n",
        f"POST {path}.info HTTP/1.1\r\n{host}Content-Length: 9\r\nConnection: close\r\n\r\n123456789",
        f"GET {path}.info HTTP/1.1\r\n{host}Upgrade: websocket\r\nConnection: upgrade, close\r\n\r\n",
    )
    for request in requests:
        await gate.gateway.raw(request.encode())
    (gate.store / "example.com/x/@v/v1.0.0.info").chmod(0)
    await gate.get(f"{X}.info", token=token)
    # Answers that break off, whatever listens at the role's place.
    for answer in (b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nx", b""):
        gate.home.modules_socket.unlink(missing_ok=True)

        async with backend(_cut(answer), unix=gate.home.modules_socket):
            await gate.gateway.bytes(f"GET {path}.none HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode())
    assert token not in gate_log(gate)
    assert token[:8] not in gate_log(gate)


async def test_a_client_that_goes_away_ends_its_request(gate: Front) -> None:
    """What the role still sends to nobody is refused at once, not gathered in memory or on the disk."""
    refused = asyncio.Event()

    async def endless(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        try:
            while True:
                request.writer.write(b"x" * 65536)
                await request.writer.drain()
                # A pipe that takes everything never lets another task run.
                await asyncio.sleep(0)
        finally:
            refused.set()

    async with backend(endless, unix=gate.home.modules_socket):
        reader, writer = await gate.gateway.connect()
        target = "/goproxy/example.com/none/@v/v1.0.0.zip"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {CONSOLE}:{gate.gateway.port}\r\n\r\n".encode())
        await reader.readexactly(1_000_000)
        assert not [path for path in (gate.home.gateway / "tmp").rglob("*") if path.is_file()]
        writer.transport.abort()
        async with asyncio.timeout(30):
            await refused.wait()


def _cut(answer: bytes) -> Answer:
    async def reply(request: Request) -> None:
        request.writer.write(answer)
        await request.writer.drain()

    return reply


def gate_log(gate: Front) -> str:
    """Everything that nginx wrote down."""
    return "".join(path.read_text(errors="replace") for path in gate.home.gateway.glob("*.log"))


def _own(address: str) -> Route:
    return Route(name="r", host="own.test", backends=(Backend(address=address),), access=Access(kind="public"))


async def test_the_same_path_on_another_host_is_the_hosts_own(gate: Front) -> None:
    """A workspace that serves `/goproxy/` itself is asked, with everything that a request to it has."""
    gate.clear(open_to_all=True)
    async with backend() as own:
        await gate.gateway.publish(_own(own.address))
        answer = await gate.gateway.ask("POST", "own.test", f"/goproxy{X}.info?q=%41", {"A": "b"}, b"body")
        assert (answer.status, answer.json()["target"], answer.json()["body"]) == (
            200,
            f"/goproxy{X}.info?q=%41",
            "body",
        )
    assert (await gate.gateway.get("nobody.test", f"/goproxy{X}.info")).status == 404


async def test_the_socket_of_containers_serves_modules_alone(gate: Front) -> None:
    """Whatever Host a container names, it reaches no workspace, no API and no administration."""
    gate.clear(open_to_all=True)

    async def ask(target: str, host: str = CONSOLE) -> int:
        reader, writer = await asyncio.open_unix_connection(gate.home.containers_socket)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    async with backend() as own:
        await gate.gateway.publish(_own(own.address))
        assert await ask(f"/goproxy{X}.info") == 200
        assert await ask(f"/goproxy{X}.info", "own.test") == 200
        for target in ("/", "/api/v1/workspaces", "/.mooring/x", "/frames", "/goproxy"):
            for host in (CONSOLE, "own.test"):
                assert await ask(target, host) == 404
        for target in ("/goproxy/../api/v1/workspaces", "/x/../goproxy/y", "/%67oproxy/x", f"http://own.test{X}"):
            assert await ask(target, "own.test") in (400, 404)
