"""The idle rule on real editors: who types or works is never stopped, an untouched open tab is."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser

from mooring.workspaces.idle import LOOK_EVERY_S
from support.browser import Editor, chromium
from support.journeys import cli, create
from support.meanwhile import Done, waits_for
from support.mooring import Mooring, installation

_AFTER_S = 60


def phase(mooring: Mooring, name: str) -> str:
    """What the workspace does now."""
    return str(json.loads(mooring.cli("workspace", "show", name, "-o", "json").stdout)["phase"])


@asynccontextmanager
async def somebody_typing(editor: Editor) -> AsyncIterator[None]:
    """Keys in the editor now and then, until the end of the block."""
    typist = asyncio.get_running_loop().create_task(type_now_and_then(editor))
    try:
        yield
    finally:
        typist.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await typist


async def type_now_and_then(editor: Editor) -> None:
    """Somebody who thinks before each key."""
    while True:
        await editor.type("#")
        await asyncio.sleep(15)


async def three() -> None:
    """An open tab, a person at a terminal, and a build without a browser, under the same rule."""
    with installation() as mooring:
        mooring.add_readable_template()
        await create(mooring, "building")
        # It takes what nobody else wants: others wait at the same time.
        build = "setsid nice -n 19 sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &"
        await cli(mooring, "workspace", "exec", "building", "--", "sh", "-c", build)
        async with chromium() as browser:
            await opened(mooring, browser, "untouched")
            typed = await opened(mooring, browser, "typed")
            await typed.open_terminal()
            # Not before: on a busy machine an editor may take a minute to open, and its link lasts no longer.
            for name in ("untouched", "typed", "building"):
                await cli(mooring, "workspace", "set", name, "--idle-after", f"{_AFTER_S}s")
            async with somebody_typing(typed):
                await outlive(mooring, time.monotonic())
        assert "stopped: idle for" in await cli(mooring, "workspace", "events", "untouched")


async def opened(mooring: Mooring, browser: Browser, name: str) -> Editor:
    """A new workspace in a tab."""
    link, _ = await create(mooring, name)
    editor = Editor(await browser.new_page())
    await editor.open(link)
    return editor


async def outlive(mooring: Mooring, since: float) -> None:
    """Return once the tab has stopped, and the others are at work for more than twice as long as the rule allows."""
    async with asyncio.timeout(200):
        while await asyncio.to_thread(phase, mooring, "untouched") != "stopped":
            await asyncio.sleep(2)
    await asyncio.sleep(since + 2 * _AFTER_S + LOOK_EVERY_S - time.monotonic())
    for name in ("typed", "building"):
        assert await asyncio.to_thread(phase, mooring, name) == "running"


@waits_for(three)
def test_an_untouched_tab_stops_while_a_typist_and_a_build_go_on(done: Done) -> None:
    """Three workspaces with the same rule: an open tab, a person at a terminal, and a build without a browser."""
    done(three)
