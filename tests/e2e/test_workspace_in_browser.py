"""The main job, as a person does it: the command line, the printed link, a real code-server in Chromium."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator

import httpx2
import pytest
from playwright.async_api import Browser

from support.browser import Editor, chromium, visit
from support.journeys import appears, cli, create
from support.mooring import Mooring


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A fresh Chromium."""
    async with chromium() as started:
        yield started


async def test_a_file_made_in_the_terminal_survives_a_stop(mooring: Mooring, browser: Browser) -> None:
    """Create, open the link, type into the terminal, see the file, stop, start: file and open editor are back."""
    link, folder = await create(mooring, "first")
    context = await browser.new_context()
    editor = Editor(await context.new_page())
    await editor.open(link)
    await editor.open_terminal()
    await editor.type("echo made in the terminal > made.txt\n")
    assert await appears(folder / "made.txt") == "made in the terminal\n"
    await editor.open_file("made.txt")
    # The workbench writes down which editors are open every five seconds, and not at once.
    await asyncio.sleep(6)
    address = re.sub(r"[?#].*", "", editor.page.url)

    await cli(mooring, "workspace", "stop", "first", "--wait")
    assert (folder / "made.txt").read_text() == "made in the terminal\n"
    await visit(editor.page, address)
    assert "stopped" in (await editor.page.inner_text("body")).lower()

    await cli(mooring, "workspace", "start", "first", "--wait")
    await editor.open(address)
    await editor.shows_tab("made.txt")
    await cli(mooring, "workspace", "delete", "first", "--yes", "--wait")
    assert not folder.exists()


async def test_a_terminal_outlives_a_reload_of_the_page(mooring: Mooring, browser: Browser) -> None:
    """Loaded again, the page shows the same shell with what it said before, and takes what is typed."""
    link, folder = await create(mooring, "reloaded")
    editor = Editor(await (await browser.new_context()).new_page())
    await editor.open(link)
    await editor.open_terminal()
    await editor.type("kept=yes; echo said $((40 + 2)) before\n")
    await editor.terminal_shows("said 42 before")
    # The workbench tells the server of its terminals, and writes down that the panel is open, only seconds later.
    await asyncio.sleep(6)
    await editor.page.reload()
    await editor.terminal_shows("said 42 before")
    await editor.page.locator(".xterm-helper-textarea").first.focus()
    await editor.type("echo $kept > kept.txt\n")
    assert await appears(folder / "kept.txt") == "yes\n"
    await cli(mooring, "workspace", "delete", "reloaded", "--yes")


async def test_the_terminal_has_the_templates_environment(mooring: Mooring, browser: Browser) -> None:
    """A Go workspace's terminal runs the SDK that the template names, as `workspace exec` does: PATH is the same."""
    await cli(mooring, "workspace", "create", "gopher", "--template", "go", "--wait")
    shown = await asyncio.to_thread(mooring.json, "workspace", "show", "gopher")
    assert isinstance(shown, dict)
    folder = mooring.home / "workspaces" / shown["id"]
    settings = folder / "data/User/settings.json"
    settings.write_text(settings.read_text().replace("{", '{ "terminal.integrated.gpuAcceleration": "off",', 1))
    editor = Editor(await (await browser.new_context()).new_page())
    await editor.open((await cli(mooring, "workspace", "open", "gopher", "--print")).strip())
    await editor.open_terminal()
    await editor.type("(command -v go; echo $PATH) > seen.txt\n")
    program, path = (await appears(folder / "home/seen.txt")).split()
    wanted = (await cli(mooring, "workspace", "exec", "gopher", "--", "sh", "-c", "command -v go; echo $PATH")).split()
    # The editor's own `code` command goes before everything else.
    assert (program, path.partition(":")[2]) == (wanted[0], wanted[1])
    await cli(mooring, "workspace", "delete", "gopher", "--yes")


async def test_two_workspaces_at_once_stay_apart(mooring: Mooring, browser: Browser) -> None:
    """What is typed into one workspace is in its own files only, and its cookie does not open the other."""
    (link_a, folder_a), (link_b, folder_b) = await create(mooring, "one"), await create(mooring, "two")
    context = await browser.new_context()
    editors = [Editor(await context.new_page()) for _ in range(2)]
    for editor, link, name in ((editors[0], link_a, "one"), (editors[1], link_b, "two")):
        await editor.open(link)
        await editor.open_terminal()
        await editor.type(f"echo {name} > mine.txt\n")
    assert (await appears(folder_a / "mine.txt"), await appears(folder_b / "mine.txt")) == ("one\n", "two\n")

    cookies = {c["name"]: c["value"] for c in await context.cookies() if c["domain"].startswith("one--")}
    assert cookies, "the first workspace has a cookie of its own host"
    statuses = [await status_at(mooring, f"{name}--admin.localhost", cookies) for name in ("one", "two")]
    assert statuses == [200, 401]
    for name in ("one", "two"):
        await cli(mooring, "workspace", "delete", name, "--yes")


async def test_a_port_opened_in_the_terminal_has_a_url(mooring: Mooring, browser: Browser) -> None:
    """A server started in the terminal answers at the workspace's port URL; a port of somebody else does not."""
    link, folder = await create(mooring, "serving")
    context = await browser.new_context()
    editor = Editor(await context.new_page())
    await editor.open(link)
    await editor.open_terminal()
    await editor.type("echo served > index.html; python3 -m http.server 38017 --bind 127.0.0.1\n")
    await appears(folder / "index.html")
    await editor.terminal_shows("Serving HTTP")
    link_port = (await cli(mooring, "workspace", "open", "serving", "--port", "38017", "--print")).strip()
    page = await context.new_page()
    await visit(page, link_port)
    assert (await page.inner_text("body")).strip() == "served"

    link_own = (await cli(mooring, "workspace", "open", "serving", "--port", str(mooring.port), "--print")).strip()
    answer = await visit(page, link_own)
    assert answer.status in {403, 404, 502, 503}
    await cli(mooring, "workspace", "delete", "serving", "--yes")


async def test_an_editor_survives_a_restart_of_the_gateway(mooring: Mooring, browser: Browser) -> None:
    """The gateway's agent and nginx are killed under an open editor, which goes on without a reload of the page."""
    link, folder = await create(mooring, "steady")
    editor = Editor(await (await browser.new_context()).new_page())
    await editor.open(link)
    await editor.open_terminal()
    await editor.page.evaluate("window.notReloaded = true")
    for pid in mooring.processes("mooring.server.role", "gateway") + mooring.processes("nginx: master"):
        os.kill(pid, signal.SIGKILL)
    await answering(mooring)
    await editor.type("echo back > back.txt\n")
    assert await appears(folder / "back.txt") == "back\n"
    assert await editor.page.evaluate("window.notReloaded === true")
    await cli(mooring, "workspace", "delete", "steady", "--yes")


async def status_at(mooring: Mooring, host: str, cookies: dict[str, str]) -> int:
    """What a host's health path answers to somebody who carries these cookies."""
    header = "; ".join(f"{name}={value}" for name, value in cookies.items())
    async with httpx2.AsyncClient() as client:
        url = f"http://127.0.0.1:{mooring.port}/healthz"
        return (await client.get(url, headers={"Host": host, "Cookie": header})).status_code


async def answering(mooring: Mooring) -> None:
    """Wait until the public listener answers."""
    async with asyncio.timeout(30), httpx2.AsyncClient() as client:
        while True:
            try:
                answer = await client.get(f"http://127.0.0.1:{mooring.port}/healthz", headers={"Host": "localhost"})
            except httpx2.TransportError:
                await asyncio.sleep(0.1)
                continue
            if answer.status_code == httpx2.codes.OK:
                return
            await asyncio.sleep(0.1)


async def no_longer_stopped(mooring: Mooring, name: str) -> None:
    """Wait until the gateway has heard of a start, or even its failure has been told."""
    headers = {"Host": f"{name}--admin.localhost", "Authorization": f"Bearer {mooring.token}"}
    async with asyncio.timeout(30), httpx2.AsyncClient() as client:
        while (await client.get(f"http://127.0.0.1:{mooring.port}/", headers=headers)).json()["code"] == "stopped":
            if json.loads(await cli(mooring, "workspace", "show", name, "-o", "json"))["phase"] == "failed":
                return
            await asyncio.sleep(0.1)


async def test_the_page_of_a_workspace_that_fails_says_why(mooring: Mooring, browser: Browser) -> None:
    """Who waits for a start that fails sees the last words of the editor, and is not told that it is stopped."""
    editor = '[editor]\ncommand = ["/bin/sh", "-c", "echo the library libfoo is missing; exit 3"]\n'
    mooring.add_template("broken", f"version = 1\n{editor}")
    await cli(mooring, "workspace", "create", "broken", "--template", "broken", "--no-start")
    link = await cli(mooring, "workspace", "open", "broken", "--print")
    page = await (await browser.new_context()).new_page()
    await visit(page, link.strip())
    assert await page.inner_text("h1") == "This workspace is stopped"
    await cli(mooring, "workspace", "start", "broken")
    # The page of what is stopped is not loaded again by itself.
    await no_longer_stopped(mooring, "broken")
    await page.click("text=Look again")
    await page.wait_for_selector("h1:has-text('This workspace has failed')")
    assert "the library libfoo is missing" in await page.inner_text("#why")
    await cli(mooring, "workspace", "delete", "broken", "--yes", "--wait")
