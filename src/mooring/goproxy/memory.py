"""The store in memory: for tests, and the contract's other side."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mooring.goproxy.ports import Entry


@dataclass(slots=True)
class MemoryBlob:
    """An open file."""

    data: bytes
    modified: float

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, start: int, length: int) -> bytes:
        return self.data[start : start + length]

    async def file(self) -> IO[bytes]:
        return io.BytesIO(self.data)

    @property
    def descriptor(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is held."""


class MemoryStore:
    """A `FullStore` that forgets everything with its process."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, float]] = {}
        self._used: dict[str, float] = {}

    async def healthy(self) -> None:
        """Always."""

    async def open(self, name: str) -> MemoryBlob | None:
        found = self._files.get(name)
        if found is None:
            return None
        self._used[name] = time.time()
        return MemoryBlob(*found)

    async def put(self, name: str, data: bytes) -> None:
        self._files[name] = (data, time.time())

    async def adopt(self, name: str, file: Path) -> None:
        await self.put(name, await asyncio.to_thread(file.read_bytes))
        await asyncio.to_thread(file.unlink)

    async def entries(self, prefix: str = "") -> AsyncIterator[Entry]:
        for name, (data, modified) in list(self._files.items()):
            if name.startswith(prefix):
                yield Entry(name, len(data), modified, max(modified, self._used.get(name, 0.0)))

    async def remove(self, name: str) -> None:
        self._files.pop(name, None)
