"""The idle rule on real editors: who types or works is never stopped, an untouched open tab is."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from support.browser import Editor, chromium
from support.journeys import create
from support.mooring import Mooring

_AFTER_S = 60


def phase(mooring: Mooring, name: str) -> str:
    """What the workspace does now."""
    return str(json.loads(mooring.cli("workspace", "show", name, "-o", "json").stdout)["phase"])


@pytest.fixture
async def typing() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that are ended with the test."""
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def type_now_and_then(editor: Editor) -> None:
    """Somebody who thinks before each key."""
    while True:
        await editor.type("#")
        await asyncio.sleep(15)


async def test_an_untouched_tab_stops_while_a_typist_and_a_build_go_on(
    mooring: Mooring, typing: list[asyncio.Task[None]]
) -> None:
    """Three workspaces with the same rule: an open tab, a person at a terminal, and a build without a browser."""
    links = {name: (await create(mooring, name))[0] for name in ("untouched", "typed", "building")}
    for name in links:
        await asyncio.to_thread(mooring.cli, "workspace", "set", name, "--idle-after", f"{_AFTER_S}s")
    build = "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &"
    await asyncio.to_thread(mooring.cli, "workspace", "exec", "building", "--", "sh", "-c", build)
    async with chromium() as browser:
        untouched, typed = [Editor(await browser.new_page()) for _ in range(2)]
        await untouched.open(links["untouched"])
        await typed.open(links["typed"])
        await typed.open_terminal()
        typing.append(asyncio.get_running_loop().create_task(type_now_and_then(typed)))
        async with asyncio.timeout(280):
            while await asyncio.to_thread(phase, mooring, "untouched") != "stopped":
                await asyncio.sleep(2)
        assert await asyncio.to_thread(phase, mooring, "typed") == "running"
        assert await asyncio.to_thread(phase, mooring, "building") == "running"
        events = await asyncio.to_thread(mooring.cli, "workspace", "events", "untouched")
        assert "stopped: idle for" in events.stdout
        # As long again as the rule allows: still at work.
        await asyncio.sleep(_AFTER_S + 20)
        assert await asyncio.to_thread(phase, mooring, "typed") == "running"
        assert await asyncio.to_thread(phase, mooring, "building") == "running"
    for name in links:
        await asyncio.to_thread(mooring.cli, "workspace", "delete", name, "--yes", "--wait")
