"""The door speaks HTTP/1.1 as RFC 9112 has it, however a request arrives and however an application answers."""

import asyncio
import os
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from mooring.goproxy.responses import CutOff
from mooring.server import door, patience
from mooring.server.exchange import Receive, Scope, Send
from support.certificates import certificate_files

Work = Callable[[], Awaitable[None]]
GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 3 * 2**20 + 17
SMALL = b"the answer\n"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Work], None]:
    """Runs a test's work in either event loop."""

    def run(work: Work) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await work()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return run


class App:
    """Answers by the path. `seen` are the requests that reached it; `gate` is what `/wait` waits for."""

    def __init__(self, file: Path) -> None:
        self.seen: list[Scope] = []
        self.outcomes: list[str] = []
        self.gate = asyncio.Event()
        file.write_bytes(random.Random(1).randbytes(LARGE))  # noqa: S311 - any bytes
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        try:
            await getattr(self, scope["path"].strip("/") or "small")(scope, send)
        except (CutOff, ConnectionError) as error:
            self.outcomes.append(type(error).__name__)
            raise

    async def small(self, _scope: Scope, send: Send, length: int = len(SMALL)) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
        await send({"type": "http.response.body", "body": SMALL})

    async def wait(self, scope: Scope, send: Send) -> None:
        await self.gate.wait()
        await self.small(scope, send)

    async def large(self, scope: Scope, send: Send, extra: int = 0) -> None:
        length = [(b"content-length", b"%d" % (LARGE + extra))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        with self.file.open("rb") as file:
            if "http.response.zerocopysend" in scope["extensions"]:
                part = {"file": file.fileno(), "offset": 0, "count": LARGE + extra}
                await send({"type": "http.response.zerocopysend", **part})
            else:
                while chunk := file.read(2**18):
                    more = file.tell() < LARGE
                    await send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def truncated(self, scope: Scope, send: Send) -> None:
        await self.large(scope, send, extra=1)

    async def parts(self, _scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one,", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def cut(self, _scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise CutOff("the other half is wrong")

    async def longer(self, scope: Scope, send: Send) -> None:
        await self.small(scope, send, len(SMALL) - 1)

    async def shorter(self, scope: Scope, send: Send) -> None:
        await self.small(scope, send, len(SMALL) + 1)

    async def inject(self, _scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\r\nset-cookie: z")]})

    async def fails(self, _scope: Scope, _send: Send) -> None:
        raise ValueError("a mistake")

    async def nothing(self, _scope: Scope, _send: Send) -> None:
        """An application that forgets to answer."""


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[App]:
    """A door at a unix socket."""
    app = App(tmp_path / "file")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "door"))
        listener.listen()
        async with door.answering(app, listener):
            yield app


async def connect(tmp_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client."""
    return await asyncio.open_unix_connection(tmp_path / "door")


async def ask(tmp_path: Path, request: bytes, pieces: list[bytes] | None = None) -> bytes:
    """All that comes back until the server closes; without dates."""
    reader, writer = await connect(tmp_path)
    for piece in pieces or [request]:
        writer.write(piece)
        await asyncio.sleep(0)
    answer = await reader.read()
    writer.close()
    return plain(answer)


def plain(answer: bytes) -> bytes:
    """Without what is the same in every head."""
    return re.sub(rb"date: [^\r]*\r\nx-content-type-options: nosniff\r\n", b"", answer)


def answer(body: bytes, *, last: bool = False, length: int | None = None) -> bytes:
    """What `small` looks like."""
    close = b"connection: close\r\n" if last else b""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (length or len(body), close, body)


END = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("seed", range(6))
def test_requests_may_arrive_in_any_pieces(tmp_path: Path, run: Any, seed: int) -> None:  # noqa: ANN401
    """Several at once, or a byte at a time: each gets its answer, in order, and HEAD the same one without its body."""
    order = random.Random(seed)  # noqa: S311 - where pieces end
    kinds = {
        GET % b"/": answer(SMALL),
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n": answer(b"", length=len(SMALL)),
        GET % b"/parts": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n",
        b"GET http://x/?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n": answer(SMALL),
    }
    requests = order.choices(list(kinds), k=40)
    data = b"".join([*requests, END])
    cuts = sorted(order.sample(range(1, len(data)), order.choice([0, 3, 300])))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    async def work() -> None:
        async with opened(tmp_path):
            expected = b"".join(kinds[request] for request in requests) + answer(SMALL, last=True)
            assert await ask(tmp_path, data, pieces) == expected

    run(work)


BAD = [
    b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00",
    b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_request_is_refused(tmp_path: Path, run: Any, bad: bytes) -> None:  # noqa: ANN401
    """With 400 and the end of the connection; what came before it is answered, what comes after it is nobody's."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            refused = await ask(tmp_path, bad + GET % b"/")
            assert refused.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert refused.count(b"HTTP/1.1 400") == 1
            assert not app.seen
            first = await ask(tmp_path, GET % b"/" + bad + GET % b"/")
            assert first == answer(SMALL, last=True)
            assert len(app.seen) == 1

    run(work)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 1000000\r\n\r\n", b"x" * 1_000_000),
        (b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nGET /\r\n0\r\nAuthorization: trailer\r\n\r\n" + GET % b"/"),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"\x81\x05hello" + GET % b"/"),
    ],
)
def test_bodies_and_offers_are_not_read(tmp_path: Path, run: Any, head: bytes, body: bytes) -> None:  # noqa: ANN401
    """The request is answered at once and is the last one; nothing in its body passes for a request or a header."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            reader, writer = await connect(tmp_path)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + body)
            found = plain(await reader.read())
            assert found == answer(SMALL, last=True)
            writer.close()
            (scope,) = app.seen
            assert b"authorization" not in dict(scope["headers"])

    run(work)


def test_http_1_0_gets_one_answer(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """And no chunks, which it does not know: the end of the connection is the end of the answer."""

    async def work() -> None:
        async with opened(tmp_path):
            found = await ask(tmp_path, b"GET /parts HTTP/1.0\r\n\r\n" + GET % b"/")
            assert found == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none,two"

    run(work)


def test_a_file_reaches_slow_and_fast_clients_whole(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """The kernel sends what it can; what waits for a slow client keeps its order, and holds nobody up."""

    async def slow() -> bytes:
        reader, writer = await connect(tmp_path)
        writer.write(GET % b"/large" + END)
        await asyncio.sleep(0.05)
        found = b""
        while chunk := await reader.read(50_000):
            found += chunk
            await asyncio.sleep(0)
        writer.close()
        return found

    async def work() -> None:
        async with opened(tmp_path) as app:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(slow()) for _ in range(6)]
                await asyncio.sleep(0.02)
                assert await ask(tmp_path, END) == answer(SMALL, last=True)
            for task in tasks:
                head, _, rest = task.result().partition(b"\r\n\r\n")
                assert head.endswith(b"content-length: %d" % LARGE)
                assert rest[:LARGE] == app.file.read_bytes()
                assert rest[LARGE:].endswith(SMALL)

    run(work)


def test_all_of_it_over_tls(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """A large file passes through memory there, to a client that reads slowly; and the answer to a body arrives."""
    cert, key = certificate_files(tmp_path, "127.0.0.1")
    trust = ssl.create_default_context(cafile=str(cert))

    async def asked(port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, limit=2**14)
        writer.write(request)
        await asyncio.sleep(0.1)
        found = await reader.read()
        writer.close()
        return found

    async def work() -> None:
        app = App(tmp_path / "file")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            async with door.answering(app, listener, door.encryption(cert, key)):
                found = await asked(port, GET % b"/large" + END)
                _, _, rest = found.partition(b"\r\n\r\n")
                assert rest[:LARGE] == app.file.read_bytes()
                assert rest[LARGE:].endswith(SMALL)
                body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123456789"
                assert (await asked(port, body)).endswith(SMALL)
            assert [scope["scheme"] for scope in app.seen] == ["https"] * 3

    run(work)


@pytest.mark.parametrize("path", [b"/cut", b"/truncated", b"/shorter", b"/longer"])
def test_what_is_not_as_its_head_says_is_cut_off(tmp_path: Path, run: Any, path: bytes) -> None:  # noqa: ANN401
    """The connection ends before the answer does: no receiver takes it for whole, or the next one's bytes for it."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            found = await ask(tmp_path, GET % path + GET % b"/")
            assert len(app.seen) == 1
            assert not found.endswith(b"0\r\n\r\n")
            head, _, body = found.partition(b"\r\n\r\n")
            if length := re.search(rb"content-length: (\d+)", head):
                assert found.startswith(b"HTTP/1.1 500") or len(body) < int(length[1])
            assert await ask(tmp_path, END) == answer(SMALL, last=True)

    run(work)


@pytest.mark.parametrize("path", [b"/fails", b"/nothing", b"/inject", b"/longer"])
def test_a_mistake_of_the_application_is_a_500(tmp_path: Path, run: Any, path: bytes) -> None:  # noqa: ANN401
    """As long as nothing was sent; the connection ends, others go on."""

    async def work() -> None:
        async with opened(tmp_path):
            found = await ask(tmp_path, GET % path + GET % b"/")
            assert found.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert b"set-cookie" not in found
            assert await ask(tmp_path, END) == answer(SMALL, last=True)

    run(work)


@pytest.mark.parametrize("path", [b"/wait", b"/large"])
def test_a_client_that_goes_away_ends_its_answer(tmp_path: Path, run: Any, path: bytes) -> None:  # noqa: ANN401
    """The application hears of it when it sends, and reads no further."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            _, writer = await connect(tmp_path)
            writer.write(GET % path)
            while not app.seen:
                await asyncio.sleep(0.001)
            writer.transport.abort()
            await asyncio.sleep(0.05)
            app.gate.set()
            while not app.outcomes:
                await asyncio.sleep(0.001)
            assert app.outcomes == ["ConnectionResetError"]

    run(work)


def test_many_requests_at_once_are_one_clients_turn_each(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """Somebody who sends hundreds in one packet is not served before everybody else."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            greedy, first = await connect(tmp_path)
            modest, second = await connect(tmp_path)
            first.write(GET % b"/" * 500)
            second.write(GET % b"/?modest")
            await modest.readuntil(SMALL)
            assert len(app.seen) < 400
            for _ in range(500):
                await greedy.readuntil(SMALL)
            for writer in (first, second):
                writer.close()

    run(work)


def test_time_is_limited(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """A connection ends on which nothing comes, nothing goes on, or nobody reads."""
    monkeypatch.setattr(door, "_LOOK_S", 0.02)
    for name in ("HEAD_S", "IDLE_S", "SEND_S", "BODY_S"):
        monkeypatch.setattr(patience, name, 0.1)

    async def work() -> None:
        body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        async with opened(tmp_path) as app:
            for begun in (b"", b"GET /", GET % b"/", GET % b"/" + b"GET", body):
                reader, writer = await connect(tmp_path)
                writer.write(begun)
                found = await reader.read()
                assert found.count(SMALL) == (begun not in (b"", b"GET /"))
                writer.close()
            _, writer = await connect(tmp_path)
            writer.transport.pause_reading()
            writer.write(GET % b"/large")
            while not app.outcomes:
                await asyncio.sleep(0.01)
            writer.close()
            patient = asyncio.get_running_loop().create_task(ask(tmp_path, GET % b"/wait"))
            await asyncio.sleep(0.4)
            app.gate.set()
            assert (await patient).endswith(SMALL)

    run(work)


def test_headers_have_an_end(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """A head of more than 64 KiB is refused, in whatever pieces it comes; a burst of short ones is not."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            for value in (b"y" * 70_000, b"y\r\nz: " * 12_000):
                data = b"GET / HTTP/1.1\r\nHost: x\r\nx: " + value + b"\r\n\r\n"
                for pieces in ([data], [data[:40_000], data[40_000:]], [GET % b"/" * 9 + data[:200], data[200:]]):
                    found = await ask(tmp_path, b"", pieces)
                    assert b"431" in found or found.count(SMALL) == 9
            app.seen.clear()
            found = await ask(
                tmp_path, GET % b"/" * 2000 + b"GET / HTTP/1.1\r\nx: " + b"y" * 60_000 + b"\r\n" + END[16:]
            )
            assert found.count(SMALL) == len(app.seen) == 2001

    run(work)


def test_a_door_closes_when_answers_are_done(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """Idle connections end at once, an answer under way is finished and says that it is the last one."""

    async def work() -> None:
        async with opened(tmp_path) as app:
            idle, one = await connect(tmp_path)
            one.write(GET % b"/")
            await idle.readuntil(SMALL)
            busy, other = await connect(tmp_path)
            other.write(GET % b"/wait")
            while len(app.seen) < 2:
                await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0.1, app.gate.set)
        assert await idle.read() == b""
        found = await busy.read()
        assert b"connection: close\r\n" in found
        assert found.endswith(SMALL)
        for writer in (one, other):
            writer.close()

    run(work)


def test_a_door_does_not_wait_for_ever(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """What is not answered within the time to stop is cut off."""
    monkeypatch.setattr(door, "_GRACE_S", 0.1)

    async def work() -> None:
        async with opened(tmp_path) as app:
            reader, writer = await connect(tmp_path)
            writer.write(GET % b"/wait")
            while not app.seen:
                await asyncio.sleep(0.001)
        assert await reader.read() == b""
        writer.close()

    run(work)


def test_no_client_is_blamed_for_a_stop(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """Of several slow clients whose answers a stop cuts off none is said to have left."""
    monkeypatch.setattr(door, "_GRACE_S", 0.1)

    async def work() -> None:
        async with opened(tmp_path) as app:
            clients = [await connect(tmp_path) for _ in range(3)]
            for reader, writer in clients:
                writer.write(GET % b"/large")
                await reader.readuntil(b"\r\n\r\n")
        # One that is cancelled hears of nothing else.
        assert set(app.outcomes) == {"CutOff"}
        for _, writer in clients:
            writer.close()

    run(work)


@pytest.mark.parametrize("path", [b"/", b"/wait"])
def test_a_door_over_tls_waits_for_no_goodbye(
    tmp_path: Path,
    run: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    path: bytes,
) -> None:
    """A client that sleeps with its connection open, as a suspended machine does, is no answer under way."""
    monkeypatch.setattr(door, "_GRACE_S", 20.0)
    monkeypatch.setattr(door, "_LOOK_S", 0.02)
    monkeypatch.setattr(patience, "GOODBYE_S", 0.1)
    cert, key = certificate_files(tmp_path, "127.0.0.1")
    trust = ssl.create_default_context(cafile=str(cert))

    def asleep(port: int) -> ssl.SSLSocket:
        client = trust.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
        client.sendall(GET % path)
        assert path == b"/wait" or client.recv(1000)
        return client

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, capture_logs() as told:
            app = App(tmp_path / "file")
            async with door.answering(app, listener, door.encryption(cert, key)):
                client = await asyncio.to_thread(asleep, listener.getsockname()[1])
                while not app.seen:
                    await asyncio.sleep(0.001)
                asyncio.get_running_loop().call_later(0.1, app.gate.set)
        client.close()
        assert not told

    run(work)


def test_no_file_stays_open(tmp_path: Path, run: Any) -> None:  # noqa: ANN401
    """Neither after answers nor after clients that went away."""

    async def work() -> None:
        async with opened(tmp_path):
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - how many, nothing else
            await ask(tmp_path, END)
            for _ in range(20):
                _, writer = await connect(tmp_path)
                writer.write(GET % b"/large")
                await asyncio.sleep(0.002)
                writer.transport.abort()
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: PTH208
                await asyncio.sleep(0.01)

    run(work)
