"""The route sources that the contract suite runs on. A new one adds itself to `SOURCES`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from mooring.discovery.file import FileSource
from mooring.discovery.redis import RedisSource
from mooring.gateway.stream import StreamSource
from mooring.routes.ports import Revision, RouteSource, SectionChange
from mooring.routes.wire import Ping, Synced
from mooring.settings import FileSource as FileSettings
from mooring.settings import RedisSource as RedisSettings
from support.redis import RedisServer, redis_server
from support.routes import serving
from support.section_server import SectionServer, section_server


class SourceUnderTest(Protocol):
    """A source, and the place that it reads from."""

    source: RouteSource

    async def put(self, names: Sequence[str]) -> None:
        """Have exactly routes of these names there."""

    async def go_away(self) -> None:
        """Make the place unreachable."""

    async def come_back(self, names: Sequence[str]) -> None:
        """Make it reachable again, with these routes."""


SourceFactory = Callable[[Path], AbstractAsyncContextManager[SourceUnderTest]]
"""Makes the place below a folder, reachable and without routes, and takes it away."""


class FileUnderTest:
    """A file, replaced by renames."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "routes.yaml"
        self.source = FileSource(FileSettings(self._path, look_every_s=0.2))

    async def put(self, names: Sequence[str]) -> None:
        entries = "".join(
            f"- {{name: {name}, host: {name}.localhost, backends: [{{address: '127.0.0.1:1'}}]}}\n" for name in names
        )
        new = self._path.with_suffix(".new")
        new.write_text(f"routes:\n{entries}" if entries else "routes: []\n")
        new.rename(self._path)

    async def go_away(self) -> None:
        self._path.unlink()

    async def come_back(self, names: Sequence[str]) -> None:
        await self.put(names)


class RedisUnderTest:
    """A real Redis."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.source = RedisSource(RedisSettings(paths_host="ws.localhost", url=server.url))

    async def put(self, names: Sequence[str]) -> None:
        async with self._server.client() as client, client.pipeline() as both:
            both.delete("hosts")
            for name in names:
                both.hset("hosts", name, "127.0.0.1:1")
            await both.execute()

    async def go_away(self) -> None:
        await self._server.kill()

    async def come_back(self, names: Sequence[str]) -> None:
        # At first under a name that nobody looks for: Redis comes back empty, and that would be a section too.
        aside = self._server.socket.with_suffix(".aside")
        real, self._server.socket = self._server.socket, aside
        url, self._server.url = self._server.url, f"unix://{aside}?db=0"
        await self._server.start()
        await self.put(names)
        aside.rename(real)
        self._server.socket, self._server.url = real, url


class StreamUnderTest:
    """The server's stream."""

    def __init__(self, server: SectionServer) -> None:
        self._server = server
        self.source = StreamSource(server.link(), name="server")

    async def put(self, names: Sequence[str]) -> None:
        change = SectionChange("workspaces", tuple(map(serving, names)), complete=True, revision=Revision("e", 1))
        self._server.snapshot = (change, Synced())
        await self._server.send(change, Ping(Revision("e", 1), 60))

    async def go_away(self) -> None:
        await self._server.stop()

    async def come_back(self, names: Sequence[str]) -> None:
        await self.put(names)
        await self._server.start()


@asynccontextmanager
async def file(folder: Path):  # noqa: ANN201 - a factory of the type above
    """A file without routes."""
    made = FileUnderTest(folder)
    await made.put(())
    yield made


@asynccontextmanager
async def redis(folder: Path):  # noqa: ANN201 - a factory of the type above
    """An empty Redis."""
    async with redis_server(folder) as server:
        yield RedisUnderTest(server)


@asynccontextmanager
async def stream(folder: Path):  # noqa: ANN201 - a factory of the type above
    """A server with an empty section."""
    async with section_server(folder) as server:
        made = StreamUnderTest(server)
        await made.put(())
        yield made


SOURCES: dict[str, SourceFactory] = {"file": file, "redis": redis, "stream": stream}
