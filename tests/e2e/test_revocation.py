"""What somebody may no longer do ends within a second, also where a WebSocket is open: through a whole Mooring."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.mooring import Mooring, installation

WITHIN_S = 1.0
HOST = "own--admin.localhost"
SHARED = "shared.localhost"


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """An installation with the running workspace `own`, made from a template of the tests'."""
    with installation() as running:
        running.add_light_template()
        running.cli("workspace", "create", "own", "--template", "light", "--wait")
        yield running


async def api(mooring: Mooring, method: str, path: str, body: object = None, token: str = "") -> httpx2.Response:
    """A call of the API, the administrator's unless another token is given."""
    headers = {"Host": "localhost", "Authorization": f"Bearer {token or mooring.token}"}
    async with httpx2.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{mooring.port}/api/v1/{path}"
        answer = await client.request(method, url, headers=headers, json=body)
    assert answer.is_success, answer.text
    return answer


async def workspace_id(mooring: Mooring) -> str:
    """The id of `own`."""
    return str((await api(mooring, "GET", "workspaces?name=own")).json()["items"][0]["id"])


async def token(mooring: Mooring, user: str) -> tuple[str, str]:
    """A new bearer token of `user`: its id and its secret."""
    made = (await api(mooring, "POST", f"users/{user}/tokens", {"label": "test"})).json()
    return made["id"], made["token"]


async def cookie(mooring: Mooring) -> str:
    """A session at the host of `own`, as a browser has it after a link."""
    done = await asyncio.to_thread(mooring.cli, "workspace", "open", "own", "--print")
    path = f"/.mooring/ticket?{urlsplit(done.stdout.strip()).query}"
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{mooring.port}{path}", headers={"Host": HOST})
    assert answer.status_code == 303
    return str(answer.headers["set-cookie"].partition(";")[0])


def dial(mooring: Mooring, host: str = HOST, path: str = "/socket", **headers: str) -> connect:
    """A WebSocket with these headers."""
    sent = {"Origin": f"http://{host}:{mooring.port}"} | headers
    url = f"ws://{host}:{mooring.port}{path}"
    return connect(url, host="127.0.0.1", port=mooring.port, additional_headers=sent, proxy=None, close_timeout=0.1)


@asynccontextmanager
async def open_until_then(
    mooring: Mooring, host: str = HOST, path: str = "/socket", **headers: str
) -> AsyncIterator[None]:
    """An open WebSocket, which must be cut within a second of what the body does, and cannot be opened again."""
    async with dial(mooring, host, path, **headers) as socket:
        await stays_open(socket)
        yield
        began = time.monotonic()
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(20):
                while True:
                    await socket.recv()
        assert time.monotonic() - began < WITHIN_S
    with pytest.raises(InvalidStatus):
        await dial(mooring, host, path, **headers)


async def stays_open(socket: ClientConnection) -> None:
    """Nothing ends it by itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                await socket.recv()


def bearer(secret: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {secret}"}


async def test_a_session_that_is_signed_out(mooring: Mooring) -> None:
    """At the host itself: that session's sockets end, another's stay."""
    mine, other = await cookie(mooring), await cookie(mooring)
    async with dial(mooring, Cookie=other) as kept:
        async with open_until_then(mooring, Cookie=mine):
            headers = {"Host": HOST, "Origin": f"http://{HOST}:{mooring.port}", "Cookie": mine}
            async with httpx2.AsyncClient() as client:
                url = f"http://127.0.0.1:{mooring.port}/.mooring/sign-out"
                assert (await client.post(url, headers=headers)).status_code == 200
        await stays_open(kept)
        assert kept.close_code is None


async def test_every_session_of_a_person(mooring: Mooring) -> None:
    """Signed out everywhere, all sockets that came from a browser end; a token's stays."""
    mine = await cookie(mooring)
    async with dial(mooring, **bearer(mooring.token)) as kept:
        async with open_until_then(mooring, Cookie=mine):
            await api(mooring, "DELETE", "users/admin/sessions")
        await stays_open(kept)
        assert kept.close_code is None


async def test_a_token_that_is_revoked(mooring: Mooring) -> None:
    """What it opened ends: the editor's socket, and a command that runs over the API."""
    number, secret = await token(mooring, "admin")
    path = f"/api/v1/workspaces/{await workspace_id(mooring)}/exec?command=cat"
    async with dial(mooring, "localhost", path, **bearer(secret)) as command:
        await command.send(b"\x03" + json.dumps({}).encode())
        async with open_until_then(mooring, **bearer(secret)):
            await api(mooring, "DELETE", f"users/admin/tokens/{number}")
        async with asyncio.timeout(WITHIN_S):
            await command.wait_closed()
        assert command.close_code == 1008


async def test_a_session_that_came_from_a_revoked_token(mooring: Mooring) -> None:
    """A link that a token made ends with the token."""
    number, secret = await token(mooring, "admin")
    made = await api(mooring, "POST", f"workspaces/{await workspace_id(mooring)}/ticket", {}, secret)
    path = f"/.mooring/ticket?{urlsplit(made.json()['url']).query}"
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{mooring.port}{path}", headers={"Host": HOST})
    mine = answer.headers["set-cookie"].partition(";")[0]
    async with open_until_then(mooring, Cookie=mine):
        await api(mooring, "DELETE", f"users/admin/tokens/{number}")


@pytest.fixture
async def guest(mooring: Mooring) -> AsyncIterator[dict[str, Any]]:
    """The member `guest` with a token, and a server of WebSockets that a published route leads to."""
    program = str(Path(__file__).parents[1] / "support/light_editor.py")
    path = mooring.home.parent / "shared.sock"
    server = await asyncio.create_subprocess_exec("/usr/bin/python3", "-I", "-S", program, str(path))
    await api(mooring, "POST", "users", {"name": "guest"})
    number, secret = await token(mooring, "guest")
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0.05)
    path.chmod(0o777)
    try:
        yield {"token": number, "secret": secret, "socket": str(path)}
    finally:
        server.kill()
        await server.wait()
        path.unlink()
        with contextlib.suppress(AssertionError):
            await api(mooring, "DELETE", "users/guest")
        with contextlib.suppress(AssertionError):
            await api(mooring, "DELETE", "routes/sections/shared")


async def share(mooring: Mooring, guest: dict[str, Any], *subjects: str) -> None:
    """Publish the route for these people."""
    access = {"kind": "subjects", "subjects": subjects}
    route = {"name": "shared", "host": SHARED, "backends": [{"unix": guest["socket"]}], "access": access}
    await api(mooring, "PUT", "routes/sections/shared", {"routes": [route]})
    async with asyncio.timeout(10), httpx2.AsyncClient() as client:
        url, headers = f"http://127.0.0.1:{mooring.port}/healthz", {"Host": SHARED} | bearer(guest["secret"])
        while (await client.get(url, headers=headers)).status_code != (200 if "guest" in subjects else 403):
            await asyncio.sleep(0.02)


async def test_the_end_of_a_share(mooring: Mooring, guest: dict[str, Any]) -> None:
    """Who is taken off a route's list is out, and others stay."""
    await share(mooring, guest, "admin", "guest")
    async with dial(mooring, SHARED, **bearer(mooring.token)) as kept:
        async with open_until_then(mooring, SHARED, **bearer(guest["secret"])):
            await share(mooring, guest, "admin")
        await stays_open(kept)
        assert kept.close_code is None


async def test_a_route_that_is_withdrawn(mooring: Mooring, guest: dict[str, Any]) -> None:
    """Nothing stays open to what is no longer there."""
    await share(mooring, guest, "admin", "guest")
    async with open_until_then(mooring, SHARED, **bearer(guest["secret"])):
        await api(mooring, "DELETE", "routes/sections/shared")


async def test_a_person_who_is_removed(mooring: Mooring, guest: dict[str, Any]) -> None:
    """With the person every token goes."""
    await share(mooring, guest, "admin", "guest")
    async with open_until_then(mooring, SHARED, **bearer(guest["secret"])):
        await api(mooring, "DELETE", "users/guest")


async def test_a_workspace_that_is_stopped(mooring: Mooring) -> None:
    """Its sockets end with it, for its owner too."""
    try:
        async with open_until_then(mooring, **bearer(mooring.token)):
            await api(mooring, "POST", f"workspaces/{await workspace_id(mooring)}/stop")
    finally:
        # The other tests' too, whichever comes next.
        await asyncio.to_thread(mooring.cli, "workspace", "start", "own", "--wait")
