"""Chromium, and code-server as a person sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Error, Page, Response, async_playwright
from playwright.async_api import TimeoutError as TooLate

# Without these Chromium talks to its maker's servers at every start, and loads by itself what failed to load.
_QUIET = (
    "--disable-auto-reload",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
    "--no-sandbox",
)
_FAILED = "chrome-error://chromewebdata/"
_WITHIN_MS = 90_000
_TRIES = 5


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


async def visit(page: Page, url: str) -> Response:
    """Go to `url`; the answer.

    Chromium gives up what it loads when an interface of the machine comes or goes, as those of containers do that an
    earlier test ended: then, and only then, it is asked again.
    """
    for left in reversed(range(_TRIES)):
        try:
            answer = await page.goto(url)
        except Error as error:
            if left == 0 or "net::ERR_NETWORK_CHANGED" not in error.message:
                raise
            # The page that says so may come later, and would break off the next try.
            await page.wait_for_url(_FAILED, wait_until="commit")
        else:
            assert answer is not None
            return answer
    raise AssertionError("unreachable")


class Editor:
    """code-server's workbench in one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(_WITHIN_MS)

    async def open(self, url: str) -> None:
        """Go there and wait until the workbench can be used."""
        disturbed: list[str | None] = []
        self.page.on("requestfailed", lambda request: disturbed.append(request.failure))
        await visit(self.page, url)
        try:
            await self.page.wait_for_selector(".monaco-workbench .statusbar-item")
        except TooLate:
            # A part of the page was lost in the same way as `visit` says; the link in `url` has been used by now.
            if "net::ERR_NETWORK_CHANGED" not in disturbed:
                text = await self.page.inner_text("body")
                raise AssertionError(f"{self.page.url} shows {text[:2000]!r}; requests failed: {disturbed}") from None
            await self.page.reload()
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
        """Open a file of the workspace by its name, as a person does: who is shown nothing looks for it again."""
        for left in reversed(range(_TRIES)):
            await self.page.keyboard.press("Control+P")
            await self.page.wait_for_selector(".quick-input-widget input")
            await self.page.keyboard.type(name)
            try:
                await self.page.wait_for_selector(
                    f".quick-input-list [aria-label*='{name}']", timeout=_WITHIN_MS / _TRIES
                )
            except TooLate:
                # A workbench that is still busy with its start may have searched in nothing, and does not search anew.
                if left == 0:
                    raise
                await self.page.keyboard.press("Escape")
            else:
                break
        await self.page.keyboard.press("Enter")
        await self.shows_tab(name)

    async def shows_tab(self, name: str) -> None:
        """Wait for an open editor of that name."""
        await self.page.wait_for_selector(f".tabs-container .tab[data-resource-name='{name}']")
