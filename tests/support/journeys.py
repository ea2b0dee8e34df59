"""Steps of a person's way through Mooring that several browser tests take."""

import asyncio
from pathlib import Path

from support.mooring import Mooring


async def cli(mooring: Mooring, *arguments: str) -> str:
    """The CLI beside the browser's loop."""
    return (await asyncio.to_thread(mooring.cli, *arguments)).stdout


async def create(mooring: Mooring, name: str) -> tuple[str, Path]:
    """A running workspace: the link that signs in to it, and its folder on disk."""
    await cli(mooring, "workspace", "create", name, "--template", "readable", "--wait")
    document = await asyncio.to_thread(mooring.json, "workspace", "show", name)
    assert isinstance(document, dict)
    link = (await cli(mooring, "workspace", "open", name, "--print")).strip()
    return link, mooring.home / "workspaces" / document["id"] / "home"


async def appears(path: Path) -> str:
    """The text of a file once it is there."""
    async with asyncio.timeout(60):
        while not path.exists() or not path.read_text():
            await asyncio.sleep(0.1)
    return path.read_text()
