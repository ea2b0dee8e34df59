"""From the click to an echoed keystroke in code-server's terminal, in Chromium, with a cold browser each time."""

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.browser import Editor, chromium
from support.mooring import Mooring, installation

RUNS = 20


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with installation() as mooring:
        mooring.add_readable_template()
        await asyncio.to_thread(mooring.cli, "workspace", "create", "click", "--template", "readable", "--wait")
        async with chromium() as browser:
            seconds = [await _sample(mooring, browser, number) for number in range(RUNS + 1)][1:]
    tail = statistics.quantiles(seconds, n=20)[-1]
    name = "click to an echoed keystroke"
    return [
        {"name": f"{name}, median of {RUNS}", "value": statistics.median(seconds), "unit": "s", "limit": 5.0},
        {"name": f"{name}, 95th percentile", "value": tail, "unit": "s", "limit": 8.0},
    ]


async def _sample(mooring: Mooring, browser: Browser, number: int) -> float:
    link = (await asyncio.to_thread(mooring.cli, "workspace", "open", "click", "--print")).stdout.strip()
    context = await browser.new_context()
    editor = Editor(await context.new_page())
    clicked = time.monotonic()
    await editor.open(link)
    await editor.open_terminal()
    # The terminal of the run before is still there, with what was typed then.
    await editor.type(f"#echoed-{number}-")
    await editor.terminal_shows(f"#echoed-{number}-")
    taken = time.monotonic() - clicked
    await editor.type("\n")
    await asyncio.sleep(1)
    await context.close()
    return taken
