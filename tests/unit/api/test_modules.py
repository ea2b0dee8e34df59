"""`/modules`: who sees which modules, who may change what, and what a proxy that is away looks like."""

import dataclasses
from pathlib import Path

import pytest

from mooring.goproxy.remote import RemoteOperations
from support.api import Api

MODULES = "/api/v1/modules"
SECRET = "git.corp.example/team/secret"


@pytest.fixture
async def it(it: Api) -> Api:
    """With a public module of two versions and a private one; `bob` may have the latter."""
    await it.modules.keep("example.com/Big/lib", "v1.0.0", size=5000)
    await it.modules.keep("example.com/Big/lib", "v1.1.0")
    await it.modules.keep(SECRET, "v0.1.0")
    it.modules.tallies.pulled("example.com/Big/lib", "workspace:bob/one", missed=True)
    it.modules.tallies.pulled("example.com/Big/lib", "workspace:bobby/one", times=2)
    it.modules.tallies.failed(SECRET, f"{SECRET}@list", "unavailable", "no answer")
    return it


async def test_a_stranger_sees_nothing(it: Api) -> None:
    """Without a credential every path is 401, whatever it names."""
    for path in ("", "/@overview", "/example.com/Big/lib", "/example.com/Big/lib/@pulls"):
        assert (await it.client().get(MODULES + path)).status_code == 401
    assert (await it.client().put(f"{MODULES}/example.com/Big/lib/@pin")).status_code == 401
    assert (await it.client().post(f"{MODULES}/example.com/Big/lib/@evict", json={})).status_code == 401


async def test_the_catalog_has_what_the_caller_may_see(it: Api) -> None:
    """Private modules are listed for who may have them and for administrators, and found by a part of their path."""
    seen = {}
    for user in ("ada", "bob", "eve"):
        items = (await it.client(user).get(MODULES)).json()["items"]
        seen[user] = [item["module"] for item in items]
    assert seen == {
        "ada": ["example.com/Big/lib", SECRET],
        "bob": ["example.com/Big/lib", SECRET],
        "eve": ["example.com/Big/lib"],
    }
    (found,) = (await it.client("bob").get(MODULES, params={"q": "big/LIB"})).json()["items"]
    assert (found["versions"], found["newest"], found["requests"], found["private"]) == (2, "v1.1.0", 3, False)
    assert (await it.client("eve").get(f"{MODULES}/{SECRET}")).status_code == 404
    assert (await it.client("bob").get(f"{MODULES}/{SECRET}")).json()["source"] == "version control"


async def test_lists_come_in_pages(it: Api) -> None:
    """Of modules and of a module's versions; a cursor that we did not make is refused by name."""
    bob = it.client("bob")
    first = (await bob.get(MODULES, params={"limit": 1})).json()
    second = (await bob.get(MODULES, params={"limit": 1, "cursor": first["cursor"]})).json()
    assert [page["items"][0]["module"] for page in (first, second)] == ["example.com/Big/lib", SECRET]
    assert second["cursor"] is None
    detail = (await bob.get(f"{MODULES}/example.com/Big/lib", params={"limit": 1})).json()
    rest = (await bob.get(f"{MODULES}/example.com/Big/lib", params={"cursor": detail["cursor"]})).json()
    assert [page["items"][0]["version"] for page in (detail, rest)] == ["v1.1.0", "v1.0.0"]
    refused = await bob.get(MODULES, params={"cursor": "x"})
    assert (refused.status_code, refused.json()["field"]) == (422, "cursor")


async def test_the_overview(it: Api) -> None:
    """Counts are for all, failures for those who may see the module; with what belongs into GOPROXY and GOSUMDB."""
    mine = (await it.client("bob").get(f"{MODULES}/@overview")).json()
    assert (mine["modules"], mine["versions"], mine["problem"]) == (2, 3, "")
    assert [failure["why"] for failure in mine["failures"]] == ["no answer"]
    assert mine["proxy"] == "http://localhost:8080/goproxy/t-TOKEN"
    assert mine["sumdb"].startswith("sum.mooring.internal+")
    assert (await it.client("eve").get(f"{MODULES}/@overview")).json()["failures"] == []


async def test_who_pulls_what_is_not_for_everybody(it: Api) -> None:
    """An administrator sees every subject, a member their own workspaces only."""
    seen = {}
    for user in ("ada", "bob", "eve"):
        items = (await it.client(user).get(f"{MODULES}/example.com/Big/lib/@pulls")).json()["items"]
        seen[user] = [item["subject"] for item in items]
    assert seen == {"ada": ["workspace:bobby/one", "workspace:bob/one"], "bob": ["workspace:bob/one"], "eve": []}


async def test_members_change_nothing(it: Api) -> None:
    """Pins and evictions, dry ones too, are for administrators."""
    bob, path = it.client("bob"), f"{MODULES}/example.com/Big/lib"
    for answer in (
        await bob.put(f"{path}/@pin"),
        await bob.delete(f"{path}/@pin"),
        await bob.post(f"{path}/@evict", json={"dry_run": True}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert await it.modules.pins.all() == []
    assert await it.modules.has("example.com/Big/lib", "v1.0.0")


async def test_an_administrator_pins_and_evicts(it: Api) -> None:
    """A pin is seen at once and keeps a version; the rest of the module goes, and the answer says what and why not."""
    ada, path = it.client("ada"), f"{MODULES}/example.com/Big/lib"
    assert (await ada.put(f"{path}/@pin", params={"version": "v1.1.0"})).status_code == 204
    assert (await ada.get(path)).json()["items"][0]["pin"] == "example.com/Big/lib@v1.1.0"
    for dry_run in (True, False):
        done = (await ada.post(f"{path}/@evict", json={"dry_run": dry_run})).json()
        assert done == {
            "removed": [{"version": "v1.0.0", "size": 5000}],
            "refused": [{"version": "v1.1.0", "why": "pinned by example.com/Big/lib@v1.1.0"}],
            "dry_run": dry_run,
        }
        assert await it.modules.has("example.com/Big/lib", "v1.0.0") is dry_run
    assert (await ada.delete(f"{path}/@pin", params={"version": "v1.1.0"})).status_code == 204
    assert await it.modules.pins.all() == []


async def test_what_must_stay_stays(it: Api) -> None:
    """A private module is refused with the reason, what is not here is not found, and names are checked."""
    ada = it.client("ada")
    refused = await ada.post(f"{MODULES}/{SECRET}/@evict", json={"version": "v0.1.0"})
    assert refused.status_code == 409
    assert "only the notary vouches for it" in refused.json()["detail"]
    assert (await ada.post(f"{MODULES}/example.com/none/@evict", json={})).status_code == 404
    for module in ("no-dot", "example.com/../../etc", "example.com//x", "-/x.y"):
        assert (await ada.put(f"{MODULES}/{module}/@pin")).status_code in (404, 422), module
    bad = await ada.post(f"{MODULES}/example.com/Big/lib/@evict", json={"version": "v1", "sure": True})
    assert (bad.status_code, bad.json()["field"]) == (422, "sure")
    assert await it.modules.has(SECRET, "v0.1.0")


async def test_a_page_elsewhere_cannot_change_anything(it: Api) -> None:
    """A browser's cookie counts for a change only with the console's own Origin."""
    browser = await it.browser("ada")
    for headers in ({}, {"Origin": "http://evil--bob.localhost:8080"}):
        answer = await browser.put(f"{MODULES}/example.com/Big/lib/@pin", headers=headers)
        assert answer.status_code == 403
    assert await it.modules.pins.all() == []


async def test_a_proxy_that_is_away_or_not_wanted(it: Api, tmp_path: Path) -> None:
    """503 with what to do, and with the setting where it is switched off."""
    async with RemoteOperations(tmp_path / "none.sock", where="look there") as away:
        it.rewire(dataclasses.replace(it.services.modules, administration=away))
        for path in ("", "/@overview", "/example.com/x", "/example.com/x/@pulls"):
            answer = await it.client("ada").get(MODULES + path)
            assert (answer.status_code, answer.json()["detail"]) == (
                503,
                "the module proxy does not answer: look there",
            )
        it.rewire(dataclasses.replace(it.services.modules, wanted=lambda: False))
        answer = await it.client("ada").get(MODULES)
        assert answer.status_code == 503
        assert "goproxy.toml" in answer.json()["detail"]
