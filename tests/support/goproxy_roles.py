"""The module proxy's role in this process, behind no gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from mooring.control.tasks import Tasks
from mooring.goproxy import access
from mooring.server.goproxy_role import run
from mooring.server.lifetime import Ending, Lifetime
from mooring.settings import Home, Installation, Listen, cache
from support.goupstream import Upstream

_WITHIN_S = 30


@dataclass
class Role:
    """The role, and a client at its front door."""

    home: Home
    client: httpx2.AsyncClient
    lifetime: Lifetime
    running: asyncio.Task[None]

    def settings(self, text: str) -> None:
        """Write goproxy.toml, as an editor saves it."""
        beside = self.home.root / "goproxy.toml.new"
        beside.write_text(text)
        beside.replace(self.home.modules_settings)

    def token(self, name: str, *private: str) -> str:
        """The beginning of the paths of somebody who may have what is public, and these private modules."""
        return f"/t-{access.make(self.home.modules_tokens, name, private)}"

    async def until(self, path: str, status: int) -> str:
        """The answer's text, once it has that status."""
        async with asyncio.timeout(_WITHIN_S):
            while True:
                with suppress(httpx2.ConnectError):
                    answer = await self.client.get(path)
                    if answer.status_code == status:
                        return answer.text
                await asyncio.sleep(0.05)

    async def in_force(self) -> None:
        """Wait until settings are."""
        await self.until("/-/healthz", 200)


@asynccontextmanager
async def role(home: Home, editor: Path | None = None) -> AsyncIterator[Role]:
    """The role, until the end of the block."""
    installation = Installation(home, Listen(), editor=editor or cache() / "editor/bin/code-server")
    lifetime = Lifetime(None)
    transport = httpx2.AsyncHTTPTransport(uds=str(home.modules_socket))
    async with Tasks("test") as tasks, httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        running = tasks.spawn("role", run(installation, lifetime))
        async with asyncio.timeout(_WITHIN_S):
            while not home.modules_socket.exists():
                await asyncio.sleep(0.01)
        yield Role(home, client, lifetime, running)
        lifetime._end(Ending.stop)
        await asyncio.wait_for(running, 20)


def wanted(upstream: Upstream, *more: str) -> str:
    """Settings that need nothing but this upstream, and these lines."""
    return "\n".join((f'upstream = "{upstream.url}"', f'sumdb = "{upstream.sumdb}"', *more, ""))
