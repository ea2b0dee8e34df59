"""The proxy as a role behind a gateway: on a unix socket, with the tokens of workspaces in a file."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy import access
from mooring.goproxy.config import Config
from mooring.server.goproxy import run
from mooring.server.lifetime import Ending, Lifetime
from mooring.settings import Home, Installation, Listen
from support.goupstream import Upstream, go


@pytest.fixture
def home() -> Iterator[Home]:
    """A home in a short folder: sockets have short names."""
    folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    (folder / "run").mkdir()
    yield Home(folder)
    shutil.rmtree(folder)


async def test_a_workspace_is_served_by_its_token(tmp_path: Path, home: Home) -> None:
    """A token that is written into the file opens at once, and the role ends when its lifetime does."""
    with Upstream(tmp_path / "upstream").serving() as upstream:
        upstream.publish("example.com/x", "v1.0.0")
        tokens = home.root / "goproxy/tokens"
        config = Config(home.root / "goproxy", upstream=upstream.url, sumdb=upstream.sumdb, go=go(), tokens=tokens)
        installation = Installation(home, Listen(), editor=Path("/nowhere"))
        lifetime = Lifetime(None)
        transport = httpx2.AsyncHTTPTransport(uds=str(home.run / "goproxy.sock"))
        async with Tasks("test") as tasks, httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            role = tasks.spawn("role", run(installation, lifetime, config))
            while not (home.run / "goproxy.sock").exists():
                await asyncio.sleep(0.01)
            assert (await client.get("/example.com/x/@v/list")).status_code == 401
            token = access.make(tokens, "ws-0123456789", ())
            answer = await client.get(f"/t-{token}/example.com/x/@v/list")
            assert (answer.status_code, answer.text) == (200, "v1.0.0\n")
            lifetime._end(Ending.stop)
            await asyncio.wait_for(role, 20)
