"""Follows the output files of a workspace: what every runtime's `Logs` does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from mooring.workspaces.output import read_at

LOOK_EVERY_S = 0.25


async def chunks(folder: Path, *, offset: int, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
    """As `ports.Logs.read`. While somebody follows the files are looked at: that also works when nobody writes them."""
    while True:
        offset, data = await asyncio.to_thread(read_at, str(folder), offset)
        if data:
            yield offset, data
        elif not follow:
            return
        else:
            await asyncio.sleep(LOOK_EVERY_S)
