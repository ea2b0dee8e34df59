"""What the gateway takes for a person: real code-server in real Chromium, every frame as they send it."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from mooring.model.routes import Access, Backend, Route
from mooring.settings import cache, environment
from support.browser import Editor, chromium
from support.grants import GRANTS, cookie
from support.meanwhile import Done, waits_for
from support.nginx import Gateway, gateway

HOST = "w--ann.localhost"
# A terminal that is drawn as text in the page can be read.
SETTINGS = (
    '{"terminal.integrated.gpuAcceleration": "off", "workbench.startupEditor": "none", '
    '"security.workspace.trust.enabled": false}'
)
WORKSPACE = "abcdefghij"
UNTOUCHED_S = 75
SETTLE_S = 20


@asynccontextmanager
async def code_server(folder: Path) -> AsyncIterator[Path]:
    """The real editor on a unix socket, with a file to open; the folder of its files is `files`."""
    data, files = folder / "data", folder / "files"
    (data / "User").mkdir(parents=True)
    files.mkdir()
    (data / "User/settings.json").write_text(SETTINGS)
    (files / "a.txt").write_text("hello\n")
    child = await asyncio.create_subprocess_exec(
        str(cache() / "editor/bin/code-server"),
        *("--socket", str(folder / "editor.sock"), "--auth", "none", "--disable-telemetry", "--disable-update-check"),
        *("--user-data-dir", str(data), str(files)),
        env=environment() | {"HOME": str(folder)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(30):
            while not (folder / "editor.sock").exists():
                await asyncio.sleep(0.1)
        yield folder / "editor.sock"
    finally:
        await end_session(child)


async def end_session(child: asyncio.subprocess.Process) -> None:
    """End the editor and everything that it started."""
    os.killpg(child.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(10):
            await child.wait()
    except TimeoutError:
        os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


async def last_input(edge: Gateway) -> float:
    """When the gateway last saw input."""
    return (await edge.sink.read()).activity.get(WORKSPACE, 0.0)


async def counts(edge: Gateway, what: str, act: Awaitable[object]) -> None:
    """Check that `act` is seen as input."""
    # Activity is kept by the second.
    await asyncio.sleep(2)
    before = await last_input(edge)
    await act
    deadline = time.monotonic() + 10
    while await last_input(edge) <= before:
        assert time.monotonic() < deadline, f"{what} was not seen as input"
        await asyncio.sleep(0.2)


async def a_tab() -> None:
    """Leave it alone, use it, leave its terminal printing."""
    with tempfile.TemporaryDirectory(prefix="mrg-", dir="/tmp") as folder:
        await tab_below(Path(folder))


async def tab_below(folder: Path) -> None:
    """The same, with all its files below `folder`."""
    async with gateway(folder / "g") as edge, code_server(folder) as socket, chromium() as browser:
        access = Access(kind="subjects", subjects=("ann",))
        route = Route(name="w", host=HOST, backends=(Backend(unix=str(socket)),), access=access, workspace=WORKSPACE)
        await edge.publish(route, grants=GRANTS)
        context = await browser.new_context()
        name, _, value = cookie(HOST, seconds=3600).partition("=")
        await context.add_cookies([{"name": name, "value": value, "url": f"https://{HOST}/", "secure": True}])
        editor = Editor(await context.new_page())
        opened = time.time()
        await editor.open(f"http://{edge.authority(HOST)}/")
        assert await last_input(edge) >= opened - 1
        await settled(edge)
        await untouched(edge)
        await acting(edge, editor)
        await editor.page.keyboard.type("sleep 4; seq 20; sleep 4; date\n")
        await asyncio.sleep(3)
        await printing(edge)


async def settled(edge: Gateway) -> None:
    """Wait until what opening the page caused is over, which takes a busy machine longer."""
    async with asyncio.timeout(120):
        while time.time() - await last_input(edge) < SETTLE_S:
            await asyncio.sleep(1)


async def untouched(edge: Gateway) -> None:
    """Nothing that the tab does by itself is input, though it is connected and talks."""
    before = await edge.sink.read()
    assert before.connections[WORKSPACE] >= 2
    await asyncio.sleep(UNTOUCHED_S)
    assert await last_input(edge) == before.activity[WORKSPACE]


async def printing(edge: Gateway) -> None:
    """What a terminal prints while nobody touches it is work of the workspace, not input."""
    before = await last_input(edge)
    await asyncio.sleep(12)
    assert await last_input(edge) == before


async def acting(edge: Gateway, editor: Editor) -> None:
    """A file opened, a cursor moved, text typed, a file saved, a search, a terminal typed into: each is input."""
    keyboard = editor.page.keyboard

    async def open_file() -> None:
        await keyboard.press("Control+P")
        await keyboard.type("a.txt", delay=50)
        await editor.page.wait_for_selector(".quick-input-list .monaco-list-row")
        await keyboard.press("Enter")
        await editor.page.wait_for_selector(".tab[aria-label*='a.txt']")

    await counts(edge, "opening a file", open_file())
    # The side bar's chat is an editor too, and there before that of the file is drawn.
    await editor.page.locator(".part.editor .monaco-editor .view-lines").click()
    await keyboard.press("Control+Home")
    await cursor_in(editor, 1)
    await counts(edge, "moving the cursor", keyboard.press("ArrowDown"))
    await cursor_in(editor, 2)
    await counts(edge, "typing in the editor", keyboard.type("x"))
    await asyncio.sleep(3)
    await counts(edge, "saving a file", keyboard.press("Control+S"))
    await keyboard.press("Control+Shift+F")
    await editor.page.wait_for_selector(".search-view .monaco-inputbox textarea:focus")
    await counts(edge, "searching", keyboard.type("hello"))
    await counts(edge, "opening a terminal", editor.open_terminal())
    await counts(edge, "typing in the terminal", keyboard.type("e"))
    await keyboard.press("Backspace")


async def cursor_in(editor: Editor, line: int) -> None:
    """Wait until the cursor stands at the beginning of that line, as the status bar says."""
    await editor.page.wait_for_selector(f".statusbar-item :text-is('Ln {line}, Col 1')")


@waits_for(a_tab)
def test_an_untouched_tab_is_idle_and_a_person_is_not(done: Done) -> None:
    """An open code-server tab sends frames all the time without being input; what a person does in it is input."""
    done(a_tab)
