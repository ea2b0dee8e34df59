"""A folder in the layout of `GOMODCACHE/cache/download` as a source: `file://` upstreams, and what is imported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mooring.errors import NotFound, Unavailable
from mooring.goproxy.names import Ask
from mooring.goproxy.ports import Download

_CHUNK = 256 * 1024


class Folder:
    """A `Source` and a `Remote` below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def at(cls, url: str) -> "Folder":
        """The folder of a `file://` URL."""
        return cls(Path(unquote(urlsplit(url).path)))

    async def small(self, ask: Ask) -> bytes:
        return await self.get(ask.name)

    async def get(self, path: str) -> bytes:
        """A file. Raises as `Source`."""
        if path.endswith("/supported"):
            if await asyncio.to_thread((self._root / path).parent.is_dir):
                return b""
            raise NotFound("this folder has no such checksum database")
        try:
            return await asyncio.to_thread(self._path(path).read_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"{path} is not in the folder") from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error

    @asynccontextmanager
    async def zip(self, ask: Ask) -> AsyncIterator[Download]:
        path = self._path(ask.name)
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
            with await asyncio.to_thread(path.open, "rb") as file:

                async def chunks() -> AsyncIterator[bytes]:
                    while chunk := await asyncio.to_thread(file.read, _CHUNK):
                        yield chunk

                yield Download(size, chunks())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{ask.label} is not in the folder") from error
        except OSError as error:
            raise Unavailable(f"{ask.label} cannot be read: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        return self._root / name
