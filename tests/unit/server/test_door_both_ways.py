"""The short way of the module proxy's hits: whatever is asked for, it does what the long way does, and nothing more."""

import asyncio
import os
import random
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from mooring.goproxy import access
from mooring.goproxy.config import Config
from mooring.goproxy.responses import Hit, how_it_ended
from mooring.goproxy.service import Lifetimes
from mooring.goproxy.telemetry import Telemetry
from mooring.server import door, patience
from mooring.server.exchange import Receive, Scope, Send
from mooring.server.goproxy import Goproxy, build
from support.certificates import certificate_files
from support.goupstream import make_zip

PUBLIC, SECRET, DENIED, ELSEWHERE = "example.com/x", "git.example.com/team/s", "example.com/bad", "example.com/else"
NAMES = [
    *(f"{name}/@v/v1.0.0.{kind}" for name in (PUBLIC, SECRET, DENIED, ELSEWHERE) for kind in ("info", "mod", "zip")),
    f"{PUBLIC}/@v/v1.1.0.mod", f"{PUBLIC}/@v/v1.1.0.zip", f"{PUBLIC}/@v/v1.2.0.zip", f"{PUBLIC}/@v/v1.2.0.info",
    f"{PUBLIC}/@v/main.info", f"{PUBLIC}/@v/list",
    f"{PUBLIC}/@v/v2.0.0.mod", f"{PUBLIC}/@v/v1.0.0.ziphash", "example.com/none/@v/v1.0.0.info", "/x.mod", "-/x.info",
    "cached-only/example.com/x/@v/v1.0.0.mod", "-/healthz", f"{PUBLIC}/@v/../@v/v1.0.0.mod", "t-x.y/@v/v1.0.0.mod",
    "sumdb/sum.golang.org/lookup/x.info", "example.com/X/@v/v1.0.0.info", f"{PUBLIC}/@v/v1.0.0.info?x",
    "a" * 4000 + ".mod", f"t-wrong/{SECRET}/@v/v1.0.0.mod",
]  # fmt: skip
EXTRA = [
    b"", b"", b"", b"", b"Range: bytes=0-3\r\n", b"Accept-Encoding: gzip\r\n", b"Disable-Module-Fetch: true\r\n",
    b"Connection: close\r\n", b"Content-Length: 0\r\n", b"If-Range: x\r\n", b"Cookie: a\r\n",
]  # fmt: skip


def fill(root: Path) -> None:
    """A store with modules that are open, private, excluded and sent elsewhere."""
    for module in (PUBLIC, SECRET, DENIED, ELSEWHERE):
        folder = root / "cache/download" / module / "@v"
        folder.mkdir(parents=True)
        (folder / "v1.0.0.info").write_text('{"Version":"v1.0.0"}')
        (folder / "v1.0.0.mod").write_text(f"module {module}\n")
        (folder / "v1.0.0.zip").write_bytes(make_zip(module, "v1.0.0", {"go.mod": f"module {module}\n"}))
    folder = root / "cache/download" / PUBLIC / "@v"
    (folder / "v1.1.0.mod").write_text("x" * 300_000)
    (folder / "v1.1.0.zip").write_bytes(bytes(70_000))
    (folder / "v1.2.0.zip").write_bytes(bytes(300_000))
    (folder / "v1.2.0.info").write_text("")
    (folder / "main.info").write_text('{"Version":"v1.0.0"}')


def no_repositories(folder: Path) -> Path:
    """A go command that reaches none of them, in the same words each time."""
    file = folder / "go"
    file.write_text(
        """#!/bin/sh
[ "$1" = env ] && exec echo '{"GOPROXY": "off", "GOSUMDB": "off", "GOROOT": "/"}'
echo "go: no route to host" >&2
exit 1
"""
    )
    file.chmod(0o755)
    return file


@asynccontextmanager
async def opened(
    root: Path, rules: Path, tokens: Path, taken: list[bytes] | None
) -> AsyncIterator[tuple[Goproxy, Path]]:
    """A proxy of its own with a door; with `taken` that has the short way, which notes there what it answers."""
    config = Config(
        root,
        upstream="https://127.0.0.1:9",
        sumdb="off",
        private=("git.example.com",),
        go=no_repositories(root.parent),
        # What may change is as fresh at the end of the slowest run as it was at its beginning.
        lifetimes=Lifetimes(mutable_s=3600),
        filter=rules,
        tokens=tokens,
    )

    def hits(path: bytes, authorization: bytes) -> Hit | None:
        assert goproxy.hits is not None
        answer = goproxy.hits(path, authorization)
        if answer and taken is not None:
            taken.append(path)
        return answer

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "door"))
        listener.listen()
        async with (
            build(config) as goproxy,
            door.answering(goproxy.app, listener, None, hits if taken is not None else None),
        ):
            yield goproxy, root / "door"


class Client:
    """One connection at a time, opened anew when the server has ended it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, head: bool) -> bytes:
        """The whole answer, without its date."""
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._path)
        reader, writer = self._streams
        writer.write(request)
        found = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", found)
        found += await reader.readexactly(0 if head or length is None else int(length[1]))
        if b"connection: close" in found:
            assert await reader.read() == b""
            self.close()
        return re.sub(rb"date: [^\r]*\r\n", b"", found)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def change(order: random.Random, root: Path, rules: Path) -> None:
    """Something that happens to a store, or to the rules."""
    file = root / "cache/download" / order.choice(NAMES[:6])
    what = order.choice(["unlink", "empty", "other", "link", "folder", "pipe", "rules", *["whole"] * 12])
    if what == "rules":
        rules.write_text(f"- {DENIED} # no\nD {ELSEWHERE}\n" + order.choice(["", f"- {PUBLIC} # not now\n", "?\n"]))
        return
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    file.unlink(missing_ok=True)
    if what == "link":
        file.symlink_to("v1.0.0.zip")
    elif what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what != "unlink":
        file.write_text({"empty": "", "other": "another"}.get(what, "module x\n"))


def counts(telemetry: Telemetry) -> tuple[object, ...]:
    """All that was counted, without times."""
    pulls = [(module, p.requests, p.misses, p.subjects) for module, p in telemetry.tallies.pulls.items()]
    metrics = re.findall(r"goproxy_(?:requests_total|seconds_count).*", telemetry.text().decode())
    return pulls, telemetry.tallies.outcomes, metrics


def comparable(lines: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - structlog's
    """The access log without its times."""
    return [{key: value for key, value in line.items() if key != "ms"} for line in lines if line["event"] == "served"]


def requests(order: random.Random, known: list[str]) -> list[bytes]:
    """Of every kind, and most of them by the same people for the same files."""
    found: list[bytes] = []
    rest = b""
    while len(found) < 600:
        method = order.choices([b"GET", b"HEAD", b"POST"], weights=[12, 1, 1])[0]
        name = order.choice(NAMES[:12] if order.random() < 0.7 else NAMES)
        if order.random() < 0.1 or not rest:
            token = order.choices(known, weights=[24, 4, 1, 1])[0].encode()
            rest = (b"Authorization: Bearer %b\r\n" % token if token else b"") + order.choice(EXTRA) + b"\r\n"
        line = b"%b /%b HTTP/1.%b\r\nHost: x\r\n" % (method, name.encode(), order.choices([b"1", b"0"], [19, 1])[0])
        found.append(line + rest)
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_both_ways_are_one(tmp_path: Path, seed: int) -> None:
    """Answers, log and counts are the same, while files come and go, rules change, and tokens are right or wrong."""
    root, rules, tokens = tmp_path / "root", tmp_path / "rules", tmp_path / "tokens"
    known = [access.make(tokens, "ann", ("git.example.com/team",)), access.make(tokens, "bob", ()), "wrong", ""]
    asked = requests(random.Random(seed), known)  # noqa: S311 - what is asked
    fill(tmp_path / "kept")
    seen = []
    taken: list[bytes] = []
    for short in (None, taken):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", root)
        rules.write_text(f"- {DENIED} # no\nD {ELSEWHERE}\n")
        happening, answers = random.Random(seed), []  # noqa: S311 - what happens
        with capture_logs() as lines:
            async with opened(root, rules, tokens, short) as (goproxy, path):
                client = Client(path)
                for request in asked:
                    if happening.random() < 0.15:
                        change(happening, root, rules)
                    answers.append(await client.ask(request, head=request.startswith(b"HEAD")))
                client.close()
        seen.append((answers, comparable(lines), counts(goproxy.telemetry)))
    for long_way, short_way in zip(seen[0][0], seen[1][0], strict=True):
        assert short_way == long_way
    assert seen[1][1:] == seen[0][1:]
    assert len(taken) > 10
    assert {answer[9:12] for answer in seen[0][0]} >= {b"200", b"302", b"401", b"403", b"404", b"405"}


class Counted:
    """A short way that answers everything below `/short/`, and an application that counts what is left."""

    def __init__(self, size: int) -> None:
        self.body = bytes(size)
        self.hits = self.long = 0
        self.ended: list[BaseException | None] = []

    def answer(self, path: bytes, _authorization: bytes) -> Hit | None:
        if not path.startswith(b"/short/"):
            return None
        self.hits += 1
        return ((b"content-length", b"%d" % len(self.body)),), self.body, self.ended.append

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.long += 1
        headers = [(b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 - a generator fixture
    """In either event loop."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


SHORT = b"GET /short/x HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SIZE = 60_000
LARGE = 2**20
"""Bytes that no socket of these takes at once."""


@asynccontextmanager
async def unread(
    folder: Path, size: int = SIZE
) -> AsyncIterator[tuple[Counted, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A door and the connection of a client that does not read."""
    app = Counted(size)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "door"))
        listener.listen()
        async with asyncio.timeout(60), door.answering(app, listener, hits=app.answer):
            reader, writer = await asyncio.open_unix_connection(folder / "door", limit=2**12)
            writer.transport.pause_reading()
            yield app, reader, writer


def test_a_client_that_does_not_read_is_waited_for(tmp_path: Path, runner: asyncio.Runner) -> None:
    """What it asks for meanwhile waits with it: no answers pile up here, and it gets all of them."""

    async def work() -> None:
        async with unread(tmp_path) as (app, reader, writer):
            asked = 0
            while asked < 100:
                writer.write(SHORT)
                asked += 1
                await asyncio.sleep(0.005)
            assert 0 < app.hits < 80
            assert app.hits + app.long < 80
            writer.write(LAST)
            writer.transport.resume_reading()
            found = await reader.read()
            assert found.count(b"HTTP/1.1 200 OK") == asked + 1
            assert app.hits + app.long == asked + 1
            assert app.ended == [None] * app.hits
            writer.close()

    runner.run(work())


def test_a_client_that_never_reads_is_ended(
    tmp_path: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like any other that takes nothing for too long."""
    monkeypatch.setattr(door, "_LOOK_S", 0.02)
    monkeypatch.setattr(patience, "SEND_S", 0.1)

    async def work() -> None:
        async with unread(tmp_path) as (_, _, writer):
            while not writer.transport.is_closing():
                writer.write(SHORT)
                await asyncio.sleep(0.005)

    runner.run(work())


@pytest.mark.parametrize("stopping", [False, True])
def test_an_answer_that_nobody_takes_is_no_hit(
    tmp_path: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, *, stopping: bool
) -> None:
    """Log and counts are told of a client that went away, and of an answer that the end of the server cut off."""
    monkeypatch.setattr(door, "_GRACE_S", 0.1)

    async def work() -> None:
        async with unread(tmp_path, LARGE) as (app, reader, writer):
            writer.transport.resume_reading()
            writer.write(SHORT)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(LARGE)
            writer.transport.pause_reading()
            writer.write(SHORT)
            while not app.hits:
                await asyncio.sleep(0.005)
            assert not app.ended
            if not stopping:
                writer.transport.abort()
                while not app.ended:
                    await asyncio.sleep(0.005)
        assert [how_it_ended(error)[0] for error in app.ended if error] == ["cut_off" if stopping else "gone"]
        writer.transport.abort()

    runner.run(work())


@pytest.mark.parametrize("tls", [False, True])
def test_a_half_closed_client_gets_its_answer(tmp_path: Path, runner: asyncio.Runner, *, tls: bool) -> None:
    """Over TLS, too, the second of equal requests takes the short way; what arrives with an end is answered."""
    cert, key = certificate_files(tmp_path, "127.0.0.1")
    trust = ssl.create_default_context(cafile=str(cert)) if tls else None

    async def work() -> None:
        app = Counted(1000)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            settings = door.encryption(cert, key) if tls else None
            async with asyncio.timeout(60), door.answering(app, listener, settings, app.answer):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
                for _ in range(3):
                    writer.write(SHORT)
                    found = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(1000)
                    assert found.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
                assert (app.long, app.hits) == (1, 2)
                writer.write(SHORT + SHORT + LAST[:10])
                writer.write(LAST[10:])
                if writer.can_write_eof():
                    writer.write_eof()
                assert (await reader.read()).count(b"200 OK") == 3
                assert (app.long, app.hits) == (4, 2)
                writer.close()

    runner.run(work())
