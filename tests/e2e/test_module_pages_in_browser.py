"""The console's page of Go modules in Chromium, over a whole Mooring whose proxy fetches from a local upstream."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Page, expect

from mooring.goproxy.names import Kind, ask
from mooring.settings import Home
from support.browser import chromium, visit
from support.goupstream import Fault, Upstream
from support.mooring import Mooring, installation

LIB = "example.com/Big/lib"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """With a module of two versions, and one whose list is a page of somebody's."""
    with Upstream(tmp_path_factory.mktemp("upstream")).serving() as serving:
        for version in ("v1.0.0", "v1.1.0"):
            serving.publish(LIB, version)
        serving.publish("example.com/other", "v0.1.0")
        serving.faults["example.com/broken/@v/list"] = Fault(body=SCRIPT.encode())
        yield serving


@pytest.fixture(scope="module")
def mooring(upstream: Upstream) -> Iterator[Mooring]:
    """A Mooring that fetches from there."""
    with installation() as running:
        settle(running, f'upstream = "{upstream.url}"\nsumdb = "{upstream.sumdb}"\n')
        yield running


@pytest.fixture
async def page(mooring: Mooring) -> AsyncIterator[Page]:
    """A page of a browser that is signed in; a dialog, or anything that the policy refuses, fails the test."""
    wrong: list[str] = []
    async with chromium() as browser:
        opened = await (await browser.new_context()).new_page()
        opened.set_default_timeout(30_000)
        opened.on("console", lambda message: wrong.append(message.text))
        opened.on("dialog", lambda dialog: wrong.append(dialog.message))
        link = await said(mooring, "console", "--print")
        await visit(opened, link)
        yield opened
    assert wrong == []


def settle(mooring: Mooring, text: str) -> None:
    """Write `goproxy.toml`, whole at once."""
    beside = mooring.home / "goproxy.toml.new"
    beside.write_text(text)
    beside.chmod(0o644)
    beside.replace(mooring.home / "goproxy.toml")


async def said(mooring: Mooring, *arguments: str) -> str:
    """What `mooring ARGUMENTS` prints."""
    return (await asyncio.to_thread(mooring.cli, *arguments)).stdout.strip()


async def pull(mooring: Mooring, *names: str) -> list[int]:
    """Ask for files as a go command outside of a workspace does; the statuses."""
    token = await said(mooring, "goproxy", "token", "ci")
    base = f"http://127.0.0.1:{mooring.port}/goproxy/t-{token}"
    async with httpx2.AsyncClient(base_url=base, headers={"Host": f"localhost:{mooring.port}"}, timeout=30) as client:
        async with asyncio.timeout(60):
            # The role is started once all else is ready, and takes new settings within a second.
            while (await client.get("/example.com/other/@v/list")).status_code != 200:
                await asyncio.sleep(0.2)
        return [(await client.get(f"/{name}")).status_code for name in names]


def zip_of(mooring: Mooring, version: str) -> Path:
    """Where the store has a version."""
    return Home(mooring.home).modules / "cache/download" / ask(LIB, version, Kind.zip).name


async def test_search_open_pin_and_evict(mooring: Mooring, page: Page) -> None:
    """What a build fetched is found and opened; a pin keeps a version, an eviction asks, and removes the other one."""
    names = [ask(LIB, version, kind).name for version in ("v1.0.0", "v1.1.0") for kind in (Kind.info, Kind.zip)]
    assert await pull(mooring, *names, "example.com/other/@v/v0.1.0.info") == [200] * 5
    assert (await pull(mooring, "example.com/broken/@v/list"))[0] >= 500
    async with asyncio.timeout(30):
        while not all(zip_of(mooring, version).exists() for version in ("v1.0.0", "v1.1.0")):
            await asyncio.sleep(0.1)

    await page.get_by_role("link", name="Modules", exact=True).click()
    await expect(page.get_by_role("link", name="example.com/other")).to_have_count(1)
    await expect(page.get_by_role("link", name="example.com/broken@list")).to_have_count(1)
    await page.get_by_role("searchbox").fill("big/LIB")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("link", name="example.com/other")).to_have_count(0)
    await page.get_by_role("link", name=LIB, exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(LIB)
    await expect(page.locator("code", has_text="h1:")).to_have_count(2)
    await expect(page.get_by_role("cell", name="ci", exact=True)).to_have_count(1)

    await page.get_by_role("button", name="Pin v1.1.0").click()
    await page.get_by_role("button", name="Unpin v1.1.0").wait_for()
    await expect(page.get_by_role("link", name="Evict v1.1.0")).to_have_count(0)
    await page.get_by_role("link", name="Evict…", exact=True).click()
    await expect(page.get_by_text(f"pinned by {LIB}@v1.1.0")).to_have_count(1)
    assert zip_of(mooring, "v1.0.0").exists()
    await page.get_by_role("button", name="Evict").click()
    await page.get_by_text("no zip", exact=True).wait_for()
    assert not zip_of(mooring, "v1.0.0").exists()
    assert zip_of(mooring, "v1.1.0").exists()
    assert await pull(mooring, ask(LIB, "v1.0.0", Kind.zip).name) == [200]


async def test_a_private_module_is_shown_to_those_who_may_have_it(mooring: Mooring) -> None:
    """As goproxy.toml says, for the command line as for the page; who pulls what is not for everybody."""
    await pull(mooring, "example.com/other/@v/v0.1.0.info", ask(LIB, "v1.0.0", Kind.info).name)
    before = (mooring.home / "goproxy.toml").read_text()
    private = 'private = ["example.com/other"]\n[[allow]]\nusers = ["bob"]\nmodules = ["example.com/other"]\n'
    settle(mooring, before + private)
    seen: dict[str, set[str]] = {}
    try:
        for user in ("bob", "eve"):
            await said(mooring, "user", "create", user)
            token = await said(mooring, "user", "token", "create", user)
            seen[user] = await _listed(mooring, token, private=user == "bob")
    finally:
        settle(mooring, before)
    assert seen == {"bob": {"example.com/other", LIB}, "eve": {LIB}}


async def test_a_killed_proxy_is_told_and_comes_back(mooring: Mooring) -> None:
    """Meanwhile the catalog says that the proxy does not answer; then it has what it had."""
    await pull(mooring, ask(LIB, "v1.0.0", Kind.info).name)
    (role,) = mooring.processes("mooring.server.role", "goproxy")
    os.kill(role, signal.SIGKILL)
    headers = {"Host": f"localhost:{mooring.port}", "Authorization": f"Bearer {mooring.token}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{mooring.port}", headers=headers) as client:
        async with asyncio.timeout(60):
            while (answer := await client.get("/api/v1/modules")).status_code != 200 or _is(mooring, role):
                assert answer.status_code in (200, 503)
                assert answer.status_code == 200 or "module proxy" in answer.json()["detail"]
                await asyncio.sleep(0.05)
    assert LIB in {item["module"] for item in answer.json()["items"]}


def _is(mooring: Mooring, role: int) -> bool:
    return role in mooring.processes("mooring.server.role", "goproxy")


async def _listed(mooring: Mooring, token: str, *, private: bool) -> set[str]:
    """The modules in the catalog, once the new settings are in force."""
    headers = {"Host": f"localhost:{mooring.port}", "Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{mooring.port}", headers=headers) as client:
        async with asyncio.timeout(60):
            while True:
                # The role takes up new settings, and so does the server, each in its time.
                answer = await client.get("/api/v1/modules/example.com/other")
                if answer.json()["private"] if answer.is_success else answer.status_code == 404 and not private:
                    break
                await asyncio.sleep(0.2)
        answer = await client.put(f"/api/v1/modules/{LIB}/@pin")
        assert answer.status_code == 403
        return {item["module"] for item in (await client.get("/api/v1/modules")).json()["items"]}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_the_pages_fit(mooring: Mooring, page: Page, width: int, scheme: str) -> None:
    """On a desk and on a telephone nothing is wider than the window."""
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for path in ("/modules", f"/modules/{LIB}", f"/modules/{LIB}/@evict"):
        await visit(page, f"http://localhost:{mooring.port}{path}")
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
