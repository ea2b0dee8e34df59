"""Events, logs, exec and the gateways' stream, behind a real uvicorn on a unix socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from mooring.model.routes import Route
from mooring.model.workspace import Phase
from mooring.routes.ports import SectionChange
from mooring.routes.wire import Ping, Synced, decode
from mooring.workspaces.memory_runtime import MemoryRuntime
from mooring.workspaces.ports import Channel, ExecSession
from support.api import GATEWAY_TOKEN, Api, api, over, served, ticket_of

SSE = {"Accept": "text/event-stream"}


@pytest.fixture
async def path(it: Api, tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of a real server."""
    async with served(it, tmp_path) as path:
        yield path


async def messages(response: httpx2.Response, most: int) -> list[tuple[str, dict[str, object]]]:
    """The first server-sent events: id and data of each."""
    found: list[tuple[str, dict[str, object]]] = []
    last = ""
    async with asyncio.timeout(15):
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                last = line[4:]
            elif line.startswith("data: "):
                found.append((last, json.loads(line[6:])))
                if len(found) == most:
                    break
    return found


async def test_events_resume_where_the_client_left_off(it: Api, path: Path) -> None:
    """A client that comes back with Last-Event-ID gets what it missed, once."""
    made = await it.workspace("bob")
    for number in range(3):
        await it.stage.events.append(made.id, "note", f"line {number}\nwith a break")
    url = f"/api/v1/workspaces/{made.id}/events"
    async with over(path, it.tokens["bob"]) as client:
        async with client.stream("GET", url, headers=SSE) as response:
            first = await messages(response, 2)
        async with client.stream("GET", url, headers=SSE | {"Last-Event-ID": first[1][0]}) as response:
            await it.stage.events.append(made.id, "note", "line 3")
            rest = await messages(response, 2)
    assert [data["text"] for _, data in first + rest] == [
        "line 0\nwith a break",
        "line 1\nwith a break",
        "line 2\nwith a break",
        "line 3",
    ]


@pytest.mark.parametrize("what", ["events", "logs"])
async def test_a_stream_of_a_removed_workspace_ends(it: Api, path: Path, what: str) -> None:
    """Whoever follows a workspace that is removed is not left waiting: the answer ends, and the next one is 404."""
    made, other = await it.workspace("bob"), await it.workspace("bob", "two")
    url = f"/api/v1/workspaces/{made.id}/{what}"
    async with over(path, it.tokens["bob"]) as client:
        async with asyncio.timeout(15), client.stream("GET", url, headers=SSE) as response, Tasks("test") as tasks:
            await it.stage.store.remove(other.id)
            reading = tasks.spawn("read", response.aread())
            await asyncio.sleep(0.1)
            assert not reading.done()
            await it.stage.store.remove(made.id)
            await reading
        assert (await client.get(url, headers=SSE)).status_code == 404


async def test_everybodys_stream_has_only_ones_own(it: Api, path: Path) -> None:
    """`/events` tells a member of their own workspaces, and of no other."""
    mine, other = await it.workspace("bob"), await it.workspace("eve")
    await it.stage.events.append(other.id, "note", "not yours")
    await it.stage.events.append(mine.id, "note", "yours")
    async with over(path, it.tokens["bob"]) as client, client.stream("GET", "/api/v1/events", headers=SSE) as response:
        assert [data["text"] for _, data in await messages(response, 1)] == ["yours"]


@pytest.mark.parametrize("last", ["x", "-1", "1 OR 1=1", "1" * 30])
async def test_a_last_event_id_that_is_none_is_refused(it: Api, last: str) -> None:
    """The header is checked like any other input."""
    made = await it.workspace("bob")
    response = await it.client("bob").get(f"/api/v1/workspaces/{made.id}/events", headers=SSE | {"Last-Event-ID": last})
    assert response.status_code == 422
    assert response.json()["field"] == "Last-Event-ID"


async def test_logs_resume_by_byte_and_never_cut_a_character(it: Api, path: Path) -> None:
    """The id behind each chunk is a byte offset; half a character waits for its other half."""
    made = await running(it)
    world = it.stage.runtime.world
    world.output[made] = "a€".encode()[:-1]
    url = f"/api/v1/workspaces/{made}/logs"
    async with over(path, it.tokens["ada"]) as client:
        async with client.stream("GET", url, headers=SSE) as response:
            first = await messages(response, 1)
        assert first == [("1", {"text": "a"})]
        world.output[made] = "a€b".encode()
        async with client.stream("GET", url, headers=SSE | {"Last-Event-ID": "1"}) as response:
            assert await messages(response, 1) == [("5", {"text": "€b"})]
        whole = await client.get(url, params={"follow": "false"}, headers=SSE)
        assert whole.text.endswith("event: end\ndata: {}\n\n")
        plain = await client.get(url, params={"follow": "false", "offset": 4}, headers={"Accept": "text/plain"})
        assert plain.content == b"b"


async def test_a_stream_ends_within_a_second_of_the_revocation(it: Api, path: Path) -> None:
    """An open stream does not outlive the token that opened it."""
    made = await it.workspace("bob")
    token, secret = await it.services.accounts.create_token("bob", label="short")
    async with (
        over(path, secret) as client,
        client.stream("GET", f"/api/v1/workspaces/{made.id}/events", headers=SSE) as response,
    ):
        await it.services.accounts.revoke_token("bob", token.id)
        async with asyncio.timeout(10):
            assert await response.aread() == b""


async def test_a_stream_ends_with_the_time_of_its_credential(it: Api, path: Path) -> None:
    """A token that expires in a minute holds no stream open for longer."""
    made = await it.workspace("bob")
    _, secret = await it.services.accounts.create_token("bob", label="short", expires_in_s=60)
    it.clock.ahead = 59.5
    async with (
        over(path, secret) as client,
        client.stream("GET", f"/api/v1/workspaces/{made.id}/events", headers=SSE) as response,
    ):
        async with asyncio.timeout(10):
            assert await response.aread() == b""


async def test_streams_end_when_the_server_stops(it: Api, path: Path) -> None:
    """A stop is not held up by open streams, and their clients see an orderly end."""
    async with (
        over(path, it.tokens["bob"]) as client,
        client.stream("GET", "/api/v1/events", headers=SSE) as response,
    ):
        it.services.closing.set()
        async with asyncio.timeout(10):
            assert await response.aread() == b""


async def test_the_starting_page_follows_its_own_workspace(it: Api, path: Path) -> None:
    """On a workspace's host its progress is told to its owner's browser: first the phase, then each event."""
    made = await it.workspace("bob")
    await it.stage.events.append(made.id, "note", "editor answered after 1.2 s")
    browser = await it.browser("bob", host="one--bob.localhost")
    headers = {"Cookie": browser.headers["Cookie"], "Host": "one--bob.localhost:8080"}
    async with over(path) as client:
        async with client.stream("GET", "/.mooring/events", headers=headers) as response:
            (_, first), (_, second) = await messages(response, 2)
        assert (first["phase"], second["text"]) == ("stopped", "editor answered after 1.2 s")
        assert (await client.get("/.mooring/events", headers={"Host": headers["Host"]})).status_code == 401
        eve = await it.browser("eve", host="one--bob.localhost")
        refused = await client.get("/.mooring/events", headers=headers | {"Cookie": eve.headers["Cookie"]})
        assert refused.status_code == 404


async def test_the_path_forms_host_follows_the_workspace_that_is_named(it: Api, path: Path) -> None:
    """On the host of the path forms the page says which workspace it waits for; another's is not found."""
    made, other = await it.workspace("bob"), await it.workspace("eve")
    cookie = (await it.browser("bob", host="ws.localhost")).headers["Cookie"]
    headers = {"Cookie": cookie, "Host": "ws.localhost:8080"}
    async with over(path) as client:
        query = {"workspace": made.id}
        async with client.stream("GET", "/.mooring/events", params=query, headers=headers) as response:
            assert (await messages(response, 1))[0][1]["phase"] == "stopped"
        refused = await client.get("/.mooring/events", params={"workspace": other.id}, headers=headers)
        assert refused.status_code == 404


async def running(it: Api) -> str:
    """The id of a running workspace of ada's."""
    made = await it.stage.create()
    await it.stage.until(made.id, Phase.running)
    return made.id


def connected(path: Path, url: str, token: str, **headers: str) -> unix_connect:
    """A WebSocket to the server."""
    return unix_connect(
        str(path),
        f"ws://localhost:8080{url}",
        additional_headers={"Authorization": f"Bearer {token}"} | headers,
        open_timeout=10,
    )


async def frame(socket: ClientConnection) -> tuple[int, bytes]:
    """The next frame: channel and data."""
    async with asyncio.timeout(10):
        data = await socket.recv()
    assert isinstance(data, bytes)
    return data[0], data[1:]


def control(**document: object) -> bytes:
    """A control frame."""
    return b"\x03" + json.dumps(document).encode()


async def test_a_command_gets_input_and_gives_output_and_status(it: Api, path: Path) -> None:
    """Input goes in, output comes out on its channel, and the last frame is the exit status."""
    made = await running(it)
    async with connected(path, f"/api/v1/workspaces/{made}/exec?command=cat&command=-u", it.tokens["ada"]) as socket:
        await socket.send(control(environment={"COLOUR": "blue"}, resize=[80, 24]))
        await socket.send(b"\x00hello\x00\xff")
        assert await frame(socket) == (1, b"hello\x00\xff")
        await socket.send(control(resize=[120, 40]))
        await socket.send(control(eof=True))
        assert await frame(socket) == (3, b'{"exit": 0}')
        with pytest.raises(ConnectionClosed) as closed:
            await frame(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (control(environment={"LD_PRELOAD": "x"}), "invalid_input"),
        (control(environment={"A": "x\u0000"}), "invalid_input"),
        (control(colour="blue"), "invalid_input"),
        (control(resize=["80", 24]), "invalid_input"),
        (b'\x03{"environment": {"A": "1", "A": "2"}}', "invalid_input"),
        (b"\x03[]", "invalid_input"),
        (b"\x03{", "invalid_input"),
        (b"\x03" + b"[" * 2**19, "invalid_input"),
        (b"\x03[" + b"[]," * 2**22 + b"[]]", "invalid_input"),
        (b"\x03not json", "invalid_input"),
        (b"\x00ls", "invalid_input"),
        (b"\x09", "invalid_input"),
        (b"", "invalid_input"),
        ("text", "invalid_input"),
    ],
)
async def test_a_bad_first_frame_is_answered_with_the_problem(
    it: Api, path: Path, first: bytes | str, code: str
) -> None:
    """Nothing is run before the first frame was understood."""
    made = await running(it)
    async with connected(path, f"/api/v1/workspaces/{made}/exec?command=cat", it.tokens["ada"]) as socket:
        await socket.send(first)
        channel, data = await frame(socket)
        assert channel == 3
        assert json.loads(data)["error"]["code"] == code


async def test_a_later_frame_that_cannot_be_read_ends_the_command(it: Api, path: Path) -> None:
    """Garbage in the middle closes the connection instead of being guessed at."""
    made = await running(it)
    async with connected(path, f"/api/v1/workspaces/{made}/exec?command=cat", it.tokens["ada"]) as socket:
        await socket.send(control())
        await socket.send(b"\x07")
        with pytest.raises(ConnectionClosed) as closed:
            await frame(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


class GoneSession:
    """A command whose engine goes away: in its output, or when something is written to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._in_output = "output" in command

    async def write(self, data: bytes) -> None:  # noqa: ARG002 - the port's
        raise Unavailable("the engine went away")

    async def output(self) -> AsyncIterator[tuple[Channel, bytes]]:
        yield Channel.stdout, b"a"
        if not self._in_output:
            await asyncio.Event().wait()
        raise Unavailable("the engine went away")

    async def resize(self, columns: int, rows: int) -> None:
        """No terminal."""

    async def wait(self) -> int:
        raise Unavailable("the engine went away")

    async def close(self) -> None:
        """Nothing is open."""


class GoingRuntime(MemoryRuntime):
    """Runs commands that do not survive it."""

    async def exec(  # type: ignore[override]
        self,
        workspace_id: str,  # noqa: ARG002 - the port's
        command: Sequence[str],
        *,
        environment: Mapping[str, str],  # noqa: ARG002
        tty: bool,  # noqa: ARG002
    ) -> ExecSession:
        return GoneSession(command)


@pytest.mark.parametrize("where", ["output", "input"])
async def test_an_engine_that_goes_away_ends_the_command_with_the_problem(tmp_path: Path, where: str) -> None:
    """Whether in its output or its input, the client hears why, and that its end is unknown."""
    async with api(runtime=GoingRuntime()) as it, served(it, tmp_path) as path:
        made = await running(it)
        url = f"/api/v1/workspaces/{made}/exec?command={where}"
        async with connected(path, url, it.tokens["ada"]) as socket:
            await socket.send(control())
            assert await frame(socket) == (1, b"a")
            if where == "input":
                await socket.send(b"\x00text")
            channel, data = await frame(socket)
            assert (channel, json.loads(data)["error"]["code"]) == (3, "unavailable")
            with pytest.raises(ConnectionClosed) as closed:
                await frame(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011


async def test_a_stopped_workspace_says_so(it: Api, path: Path) -> None:
    """A command in a workspace that does not run is a conflict, told as a problem."""
    made = await it.workspace("bob")
    async with connected(path, f"/api/v1/workspaces/{made.id}/exec?command=ls", it.tokens["bob"]) as socket:
        await socket.send(control())
        _, data = await frame(socket)
        assert json.loads(data)["error"]["code"] == "conflict"


@pytest.mark.parametrize(
    ("user", "query", "status"),
    [("eve", "?command=ls", 404), ("bob", "", 403), ("ada", "?command=ls", 403)],
)
async def test_nobody_runs_anything_in_anothers_workspace(
    it: Api, path: Path, user: str, query: str, status: int
) -> None:
    """Before the connection is a WebSocket the answer is an ordinary problem document."""
    made = await it.workspace("bob")
    with pytest.raises(InvalidStatus) as refused:
        async with connected(path, f"/api/v1/workspaces/{made.id}/exec{query}", it.tokens[user]):
            pass
    assert refused.value.response.status_code == (422 if user == "bob" else status)
    assert json.loads(refused.value.response.body or b"")["code"]


async def test_a_websocket_by_cookie_needs_the_consoles_origin(it: Api, path: Path) -> None:
    """A page of a workspace cannot open a command through the browser's console session."""
    made = await running(it)
    cookie = (await it.browser("ada")).headers["Cookie"]
    url = f"ws://localhost:8080/api/v1/workspaces/{made}/exec?command=cat"
    for origin in (None, "http://one--ada.localhost:8080"):
        with pytest.raises(InvalidStatus) as refused:
            async with unix_connect(str(path), url, additional_headers={"Cookie": cookie}, origin=origin):
                pass
        assert refused.value.response.status_code == 403
    ours = "http://localhost:8080"
    async with unix_connect(str(path), url, additional_headers={"Cookie": cookie}, origin=ours) as socket:
        await socket.send(control())
        await socket.send(b"\x00x")
        assert await frame(socket) == (1, b"x")


async def test_a_command_ends_with_the_credential_that_started_it(it: Api, path: Path) -> None:
    """Revoking the token closes the WebSocket."""
    made = await running(it)
    token, secret = await it.services.accounts.create_token("ada", label="short")
    async with connected(path, f"/api/v1/workspaces/{made}/exec?command=cat", secret) as socket:
        await socket.send(control())
        await socket.send(b"\x00x")
        assert await frame(socket) == (1, b"x")
        await it.services.accounts.revoke_token("ada", token.id)
        with pytest.raises(ConnectionClosed) as closed:
            await frame(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


async def test_a_gateway_gets_every_section_the_grants_and_then_changes(
    it: Api, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete sections and grants first, `synced`, then each change as it comes, and pings in quiet times."""
    monkeypatch.setattr("mooring.api.http.gateway.PING_S", 2.0)
    blue = Route.model_validate({"name": "blue", "host": "blue.example", "backends": [{"address": "127.0.0.1:1"}]})
    it.services.table.apply(SectionChange("other", (blue,), complete=True), 200)
    found: list[object] = []
    async with (
        over(path, GATEWAY_TOKEN) as client,
        client.stream("GET", "/api/v1/gateway/sections") as response,
        asyncio.timeout(20),
    ):
        async for line in response.aiter_lines():
            found.append(decode(line.encode()))
            if isinstance(found[-1], Synced):
                await it.services.accounts.create_token("bob", label="new")
                it.services.table.apply(SectionChange("other", deletes=("blue",)), 200)
            if isinstance(found[-1], Ping):
                break
    first, second, synced, change, ping = found
    assert isinstance(first, SectionChange)
    assert (first.source, first.complete) == ("workspaces", True)
    assert first.grants is not None
    assert "mooring:probe" in {grant.subject for grant in first.grants.tokens}
    assert isinstance(second, SectionChange)
    assert (second.source, second.rank, second.upserts) == ("other", 200, (blue,))
    assert isinstance(synced, Synced)
    assert isinstance(change, SectionChange)
    assert (change.source, change.deletes) == ("other", ("blue",))
    assert isinstance(ping, Ping)
    assert ping.revision == change.revision


async def test_a_gateway_hears_nothing_from_a_server_that_is_still_starting(it: Api, path: Path) -> None:
    """Before its table is whole the server sends no section: a gateway would take what is missing for gone."""
    it.services.seeded.clear()
    async with (
        over(path, GATEWAY_TOKEN) as client,
        client.stream("GET", "/api/v1/gateway/sections") as response,
    ):
        stream = response.aiter_lines()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(stream)
    assert (await it.client().get("/readyz")).status_code == 503


async def test_a_link_that_was_made_over_http_signs_a_browser_in(it: Api, path: Path) -> None:
    """The link that the CLI prints works through the real server."""
    async with over(path, it.tokens["bob"]) as client:
        link = (await client.post("/api/v1/me/ticket", json={})).json()["url"]
        host, secret = ticket_of(link)
        entered = await client.get("/.mooring/ticket", params={"ticket": secret})
    assert (host, entered.status_code, entered.headers["location"]) == ("localhost", 303, "/")
