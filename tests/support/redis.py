"""A real Redis server of a test's own, on a unix socket below its folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError


class RedisServer:
    """Starts, stops and kills `redis-server`; nothing of it is kept on disk."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"port": "0", "unixsocket": str(self.socket), "unixsocketperm": "700", "save": "", "dir": "/tmp"}  # noqa: S108
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(20), self.client() as client:
            while True:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return

    async def kill(self) -> None:
        """End it as `kill -9` does, and take its socket away too."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def freeze(self, signal: int) -> None:
        """Send it SIGSTOP or SIGCONT: it is there and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal)

    def client(self) -> Redis:
        """A client for the test's own changes."""
        return Redis.from_url(self.url)


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[RedisServer]:
    """A running server that is killed in the end."""
    server = RedisServer(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
