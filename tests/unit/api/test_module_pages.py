"""The console's pages about Go modules: what they show to whom, and that what comes from outside stays text."""

import dataclasses
import re
from pathlib import Path

import pytest

from mooring.accounts.memory import MemoryAccounts
from mooring.accounts.ports import Session
from mooring.errors import NotFound, Unavailable
from mooring.goproxy.remote import RemoteOperations
from support.api import CONSOLE, PERSON, Api

LIB = "example.com/Big/lib"
SECRET = "git.corp.example/team/secret"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
OURS = {"Origin": CONSOLE}


@pytest.fixture
async def it(it: Api) -> Api:
    """With a public module of two versions and a private one; `bob` may have the latter."""
    await it.modules.keep(LIB, "v1.0.0", size=5_000_000)
    await it.modules.keep(LIB, "v1.1.0")
    await it.modules.keep(SECRET, "v0.1.0")
    return it


async def test_strangers_are_told_how_to_sign_in(it: Api) -> None:
    """No page of modules, and no button of one, says anything to a browser that is not signed in."""
    for path in ("", f"/{LIB}", f"/{LIB}/@evict"):
        page = await it.client().get(f"/modules{path}", headers=PERSON)
        assert page.status_code == 401
        assert "mooring console" in page.text
        assert "Big" not in page.text
    for button in ("@pin", "@unpin", "@evict"):
        assert (await it.client().post(f"/modules/{LIB}/{button}", headers=OURS)).status_code == 401


async def test_the_catalog(it: Api) -> None:
    """Tiles, the modules that one may see with their sizes, a search, and what to type elsewhere."""
    for outcome, times in (("hit", 1600), ("miss", 400), ("bad_upstream", 3), ("not_found", 7)):
        it.modules.tallies.ended(outcome, times)
    page = (await (await it.browser("eve")).get("/modules")).text
    assert 'href="/modules" aria-current="page"' in page
    assert "80.0 %" in page
    assert "2,010" in page
    assert "1,600 hit, 400 miss, 7 not found" in page
    assert "3 bad upstream since" in page
    assert f'href="/modules/{LIB}"' in page
    assert "4.8 MiB" in page
    assert "secret" not in page
    assert "go env -w GOPROXY=http://localhost:8080/goproxy/t-TOKEN" in page
    assert "go env -w GOSUMDB=sum.mooring.internal+" in page
    found = (await (await it.browser("bob")).get("/modules", params={"q": "SECRET"})).text
    assert f'href="/modules/{SECRET}"' in found
    assert LIB not in found
    assert "Show all" in (await (await it.browser("bob")).get("/modules", params={"q": "nothing"})).text


async def test_a_module_and_its_buttons(it: Api) -> None:
    """An administrator has buttons and sees everybody; a member sees versions and their own workspaces' pulls."""
    it.modules.tallies.pulled(LIB, "workspace:bob/one")
    it.modules.tallies.pulled(LIB, "workspace:eve/other")
    for user, buttons, pulls in (("ada", True, ["bob/one", "eve/other"]), ("bob", False, ["bob/one"])):
        page = (await (await it.browser(user)).get(f"/modules/{LIB}")).text
        assert ("@pin?version=v1.1.0" in page) is buttons
        assert ("Evict" in page) is buttons
        assert "v1.0.0" in page
        assert "h1:abc=" in page
        assert re.findall(r"<td>((?:bob|eve)/[a-z]+)</td>", page) == pulls
    assert (await (await it.browser("eve")).get(f"/modules/{SECRET}")).status_code == 404
    assert "Evict…" not in (await (await it.browser("ada")).get(f"/modules/{SECRET}")).text


async def test_pin_and_evict_by_buttons(it: Api) -> None:
    """A pin keeps its version; the question names what goes and what stays; the button does it and leads back."""
    browser = await it.browser("ada")
    pinned = await browser.post(f"/modules/{LIB}/@pin?version=v1.1.0", headers=OURS)
    assert (pinned.status_code, pinned.headers["location"]) == (303, f"/modules/{LIB}")
    question = (await browser.get(f"/modules/{LIB}/@evict")).text
    assert "4.8 MiB" in question
    assert f"pinned by {LIB}@v1.1.0" in question
    assert await it.modules.has(LIB, "v1.0.0")
    done = await browser.post(f"/modules/{LIB}/@evict", headers=OURS)
    assert (done.status_code, done.headers["location"]) == (303, f"/modules/{LIB}")
    assert not await it.modules.has(LIB, "v1.0.0")
    assert await it.modules.has(LIB, "v1.1.0")
    assert "no zip" in (await browser.get(f"/modules/{LIB}")).text
    await browser.post(f"/modules/{LIB}/@unpin?version=v1.1.0", headers=OURS)
    assert await it.modules.pins.all() == []
    refused = await browser.post(f"/modules/{SECRET}/@evict?version=v0.1.0", headers=OURS)
    assert refused.status_code == 409
    assert "only the notary vouches for it" in refused.text


async def test_buttons_work_from_our_own_page_for_administrators_only(it: Api) -> None:
    """Another origin's page, a link, and a member change nothing."""
    admin, member = await it.browser("ada"), await it.browser("bob")
    for button in ("@pin", "@unpin", "@evict"):
        path = f"/modules/{LIB}/{button}"
        for headers in ({}, {"Origin": "http://one--bob.localhost:8080"}, {"Origin": "null"}):
            assert (await admin.post(path, headers=headers)).status_code == 403
        assert (await member.post(path, headers=OURS)).status_code == 403
    assert (await member.get(f"/modules/{LIB}/@evict")).status_code == 403
    assert (await admin.get(f"/modules/{LIB}/@evict")).status_code == 200
    for link in ("@pin", "@unpin"):
        assert (await admin.get(f"/modules/{LIB}/{link}")).status_code == 404
    assert await it.modules.pins.all() == []
    assert await it.modules.has(LIB, "v1.0.0")


async def test_what_comes_from_outside_is_text(it: Api) -> None:
    """Causes of errors, origins, subjects, paths and searches with markup are shown, not obeyed."""
    it.modules.tallies.failed(LIB, f"{LIB}@{EVIL}", EVIL, EVIL)
    it.modules.tallies.pulled(LIB, EVIL)
    info = b'{"Version":"v1.2.0","Origin":{"URL":"javascript:alert(1)<script>","Hash":"<b>"}}'
    await it.modules.keep(LIB, "v1.2.0", info=info)
    browser = await it.browser("ada")
    pages = [
        await browser.get("/modules", params={"q": EVIL}),
        await browser.get("/modules"),
        await browser.get(f"/modules/{LIB}"),
        await browser.get(f"/modules/{EVIL}"),
        await browser.get(f"/modules/{LIB}/@evict", params={"version": EVIL}),
        await browser.get("/modules", params={"cursor": EVIL}),
    ]
    for page in pages:
        assert "<script" not in page.text
        assert "<img" not in page.text
        assert "<b>" not in page.text
        assert not re.search(r"(href|action)=\"(?!/|http://localhost:8080/)", page.text)
        assert "default-src 'none'" in page.headers.get("content-security-policy", "default-src 'none'")
    assert "&lt;script&gt;" in pages[1].text
    assert "&lt;script&gt;" in pages[2].text


async def test_an_empty_proxy_and_one_that_needs_attention(it: Api) -> None:
    """Nothing kept: the lines that use it. Something wrong: what it is."""
    for name in [entry.name async for entry in it.modules.store.entries()]:
        await it.modules.store.remove(name)
    it.modules.catalog.forget()
    it.modules.operations.settings_problem = lambda: "goproxy.toml:3: max_size must be a number"
    page = (await (await it.browser("eve")).get("/modules")).text
    assert "Nothing is kept yet" in page
    assert "go mod download" in page
    assert "goproxy.toml:3: max_size must be a number" in page


async def test_a_proxy_that_is_away(it: Api, tmp_path: Path) -> None:
    """The page says so, with what to do, and the way to the workspaces stays."""
    async with RemoteOperations(tmp_path / "none.sock", where="look into the log") as away:
        it.rewire(dataclasses.replace(it.services.modules, administration=away))
        browser = await it.browser("bob")
        for path in ("/modules", f"/modules/{LIB}"):
            page = await browser.get(path)
            assert page.status_code == 503
            assert "The module proxy does not answer: look into the log." in page.text
            assert 'href="/"' in page.text
            assert page.headers["retry-after"] == "1"
        program = await browser.get("/modules", headers={"Accept": "*/*"})
        assert (program.status_code, program.json()["code"]) == (503, "unavailable")


async def test_a_database_that_is_away(it: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can be told from a stranger then; the error is a page all the same."""
    browser = await it.browser("bob")

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(MemoryAccounts, "session", away)
    for path in ("/modules", f"/modules/{LIB}"):
        page = await browser.get(path)
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert page.headers["retry-after"] == "1"
        assert "The database does not answer." in page.text


async def test_a_session_that_ends_while_the_proxy_is_asked(
    it: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the proxy is a page also when nobody is signed in any more."""
    found = MemoryAccounts.session
    asked: list[str] = []

    async def ending(accounts: MemoryAccounts, session_id: str) -> Session:
        asked.append(session_id)
        if len(asked) > 1:
            raise NotFound("no such session")
        return await found(accounts, session_id)

    async with RemoteOperations(tmp_path / "none.sock", where="look into the log") as away:
        it.rewire(dataclasses.replace(it.services.modules, administration=away))
        browser = await it.browser("bob")
        monkeypatch.setattr(MemoryAccounts, "session", ending)
        page = await browser.get("/modules")
    assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "The module proxy does not answer: look into the log." in page.text
