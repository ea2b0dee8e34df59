"""Chromium, and code-server as a person sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

# Without these Chromium talks to its maker's servers at every start.
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
    "--no-sandbox",
)
_WITHIN_MS = 90_000


@asynccontextmanager
async def chromium(home: Path | None = None, *flags: str) -> AsyncIterator[Browser]:
    """A headless browser; `home` is the folder below which it looks for the authorities that a person trusts."""
    environment = {"HOME": str(home)} if home else None
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=[*_QUIET, *flags], env=environment
        )
        try:
            yield browser
        finally:
            await browser.close()


class Editor:
    """code-server's workbench in one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(_WITHIN_MS)

    async def open(self, url: str) -> None:
        """Go there and wait until the workbench can be used."""
        await self.page.goto(url)
        await self.page.wait_for_selector(".monaco-workbench .statusbar-item")

    async def open_terminal(self) -> None:
        """Open a terminal and wait for its prompt."""
        await self.page.keyboard.press("Control+Backquote")
        await self.page.wait_for_function(
            "() => /[#$] *$/.test((document.querySelector('.xterm-rows')?.innerText ?? '').trimEnd())"
        )
        await self.page.locator(".xterm-helper-textarea").first.focus()

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.page.keyboard.type(text)

    async def terminal_shows(self, text: str) -> None:
        """Wait until the terminal shows `text`."""
        await self.page.wait_for_function(
            "text => (document.querySelector('.xterm-rows')?.innerText ?? '')"
            ".replaceAll('\\u00a0', ' ').includes(text)",
            arg=text,
        )

    async def open_file(self, name: str) -> None:
        """Open a file of the workspace by its name."""
        await self.page.keyboard.press("Control+P")
        await self.page.wait_for_selector(".quick-input-widget input")
        await self.page.keyboard.type(name)
        await self.page.wait_for_selector(f".quick-input-list [aria-label*='{name}']")
        await self.page.keyboard.press("Enter")
        await self.shows_tab(name)

    async def shows_tab(self, name: str) -> None:
        """Wait for an open editor of that name."""
        await self.page.wait_for_selector(f".tabs-container .tab[data-resource-name='{name}']")
