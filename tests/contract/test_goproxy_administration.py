"""The administration of a module proxy keeps the same promises in its process and over its socket."""

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from mooring.errors import Conflict, InvalidInput, NotFound, Unavailable
from mooring.goproxy.access import Subject
from mooring.goproxy.administration import Administration, Pull, Removed
from mooring.goproxy.names import Kind
from mooring.goproxy.remote import RemoteOperations
from support.administration import EVERYTHING, Modules, administered, modules
from support.nginx import backend, ok

STRANGER = Subject("bob")
TEAM = Subject("ann", ("git.corp.example/team",))


@dataclass
class It:
    """The proxy behind, and its administration as it is asked."""

    behind: Modules
    ask: Administration


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: sockets have short names."""
    path = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["here", "over a socket"])
async def it(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[It]:
    """Each way to ask."""
    behind = modules(folder)
    if request.param == "here":
        yield It(behind, behind.operations)
    else:
        async with administered(behind.operations, folder) as path, RemoteOperations(path, where="look there") as ask:
            yield It(behind, ask)


async def test_an_empty_proxy(it: It) -> None:
    """Nothing is kept, nobody asked, and there is no rate of nothing."""
    seen = await it.ask.overview(STRANGER)
    assert (seen.size, seen.files, seen.modules, seen.versions, seen.hit_rate, seen.failures) == (0, 0, 0, 0, None, ())
    assert seen.max_bytes == 10**9
    assert seen.problem == ""
    assert (await it.ask.modules(STRANGER, "", "", 10)).modules == ()


async def test_the_overview_has_sizes_counts_and_causes(it: It) -> None:
    """Sizes of all files, requests by their end, the rate of those that needed no upstream, and the last failures."""
    await it.behind.keep("example.com/a", "v1.0.0", size=500)
    await it.behind.keep("example.com/b", "v1.0.0", size=700)
    for outcome, times in (("hit", 5), ("stale", 1), ("miss", 2), ("not_found", 40)):
        it.behind.tallies.ended(outcome, times)
    it.behind.tallies.failed("example.com/a", "example.com/a@v1.1.0", "bad_upstream", "it sent a page")
    it.behind.tallies.failed("example.com/b", "example.com/b@list", "unavailable", "no answer")
    it.behind.tallies.failed("example.com/a", "example.com/a@v1.1.0", "bad_upstream", "it sent another page")
    seen = await it.ask.overview(STRANGER)
    assert seen.size > 1200
    assert (seen.files, seen.modules, seen.versions) == (8, 2, 2)
    assert seen.outcomes["not_found"] == 40
    assert seen.hit_rate == 0.75
    assert [(f.what, f.why, f.times) for f in seen.failures] == [
        ("example.com/a@v1.1.0", "it sent another page", 2),
        ("example.com/b@list", "no answer", 1),
    ]


async def test_modules_are_found_and_come_in_pages(it: It) -> None:
    """By a part of their path in whatever case, in order, each once."""
    for name in ("b", "A", "c/x"):
        await it.behind.keep(f"example.com/{name}", "v1.0.0")
    await it.behind.keep("example.com/b", "v1.2.0")
    await it.behind.keep("example.com/b", "v1.2.1-0.20260101000000-abcdefabcdef")
    await it.behind.keep("other.example/b", "v0.1.0")
    found = []
    after: str | None = ""
    while after is not None:
        page = await it.ask.modules(STRANGER, "EXAMPLE.com/", after, 2)
        found += page.modules
        after = page.after
    assert [item.module for item in found] == ["example.com/A", "example.com/b", "example.com/c/x"]
    assert (found[1].versions, found[1].newest, found[1].private, found[1].pin) == (3, "v1.2.0", False, "")


async def test_a_module_shows_its_versions_and_where_they_came_from(it: It) -> None:
    """The highest first, in pages, each with size, hash, who vouches for it, and the origin that its info names."""
    info = b'{"Version":"v1.10.0","Origin":{"VCS":"git","URL":"https://git.test/x","Hash":"abc123"}}'
    await it.behind.keep("example.com/x", "v1.9.0")
    await it.behind.keep("example.com/x", "v1.10.0", size=2000, info=info)
    await it.behind.keep("example.com/x", "v1.2.0", info=b'["no", "object"]')
    first = await it.ask.module(STRANGER, "example.com/x", "", 2)
    assert [v.version for v in first.versions] == ["v1.10.0", "v1.9.0"]
    assert first.after == "v1.9.0"
    second = await it.ask.module(STRANGER, "example.com/x", first.after, 2)
    assert [(v.version, v.origin) for v in second.versions] == [("v1.2.0", "")]
    assert second.after is None
    newest = first.versions[0]
    assert newest.size > 2000
    assert (newest.zip, newest.hash, newest.vouched_by) == (True, "h1:abc=", "sum.test.example")
    assert newest.origin == "https://git.test/x abc123"
    assert first.source == "upstream"
    for absent in ("example.com/none", "", "../x", "example.com/x/@v"):
        with pytest.raises(NotFound):
            await it.ask.module(STRANGER, absent, "", 2)
    with pytest.raises(InvalidInput, match="cursor must be one that a page had"):
        await it.ask.module(STRANGER, "example.com/x", "nonsense", 2)


async def test_private_modules_are_shown_to_those_who_may_have_them(it: It) -> None:
    """Lists, details and failures hide them; who may not know of one is told the same as where there is none."""
    await it.behind.keep("git.corp.example/team/x", "v1.0.0")
    await it.behind.keep("git.corp.example/other", "v1.0.0")
    it.behind.tallies.failed("git.corp.example/team/x", "git.corp.example/team/x@list", "unavailable", "no answer")
    seen = {}
    for viewer in (STRANGER, TEAM, EVERYTHING):
        listed = [item.module for item in (await it.ask.modules(viewer, "", "", 10)).modules]
        seen[viewer.name] = (listed, len((await it.ask.overview(viewer)).failures))
    both = ["git.corp.example/other", "git.corp.example/team/x"]
    assert seen == {"bob": ([], 0), "ann": (both[1:], 1), "root": (both, 1)}
    assert (await it.ask.module(TEAM, "git.corp.example/team/x", "", 9)).source == "version control"
    for viewer, module in ((STRANGER, "git.corp.example/team/x"), (TEAM, "git.corp.example/other")):
        with pytest.raises(NotFound, match=r"no version of .* is kept here"):
            await it.ask.module(viewer, module, "", 9)


async def test_who_pulls_what(it: It) -> None:
    """By name, most first; of many those who came last."""
    for number in range(30):
        it.behind.tallies.pulled("example.com/x", f"user-{number:02}", times=30 - number)
    pulls = await it.ask.pulls("example.com/x")
    assert pulls[:2] == (Pull("user-10", 20), Pull("user-11", 19))
    assert len(pulls) == 20
    assert await it.ask.pulls("example.com/none") == ()


async def test_pins(it: It) -> None:
    """A module or a version is pinned until it is unpinned; a wider pin is named, not taken away."""
    await it.behind.keep("example.com/x", "v1.0.0")
    await it.ask.pin("example.com/x", "v1.0.0")
    await it.ask.pin("example.com/x", "v1.0.0")
    detail = await it.ask.module(STRANGER, "example.com/x", "", 9)
    assert (detail.summary.pin, detail.versions[0].pin) == ("", "example.com/x@v1.0.0")
    await it.ask.pin("example.com/x", "")
    with pytest.raises(Conflict, match=r"stays pinned by example\.com/x: "):
        await it.ask.unpin("example.com/x", "v1.0.0")
    assert (await it.ask.modules(STRANGER, "", "", 9)).modules[0].pin == "example.com/x"
    await it.ask.unpin("example.com/x", "")
    await it.ask.unpin("example.com/x", "")
    assert await it.behind.pins.all() == []
    for module, version in (("no host", ""), ("example.com/x", "v1 0"), ("example.com/x", "v1\nevil"), ("", "")):
        with pytest.raises(InvalidInput):
            await it.ask.pin(module, version)
    assert await it.behind.pins.all() == []


async def test_an_eviction_removes_what_can_come_back(it: It) -> None:
    """Only zips, only after more than a dry run; what is pinned or gone elsewhere stays, with the reason."""
    for version in ("v1.0.0", "v1.1.0", "v1.2.0"):
        await it.behind.keep("example.com/x", version)
    await it.behind.keep("example.com/x/sub", "v1.0.0")
    await it.ask.pin("example.com/x", "v1.1.0")
    it.behind.gone.add("example.com/x@v1.2.0")
    for dry_run in (True, False):
        done = await it.ask.evict("example.com/x", "", dry_run=dry_run)
        assert done.removed == (Removed("v1.0.0", 1000),)
        assert [(r.version, r.why) for r in done.refused] == [
            ("v1.1.0", "pinned by example.com/x@v1.1.0"),
            ("v1.2.0", "the upstream has it no more"),
        ]
        assert await it.behind.has("example.com/x", "v1.0.0") is dry_run
    assert await it.behind.has("example.com/x", "v1.0.0", Kind.mod)
    assert await it.behind.has("example.com/x/sub", "v1.0.0")
    left = (await it.ask.module(STRANGER, "example.com/x", "", 9)).versions[-1]
    assert (left.version, left.zip, left.hash) == ("v1.0.0", False, "")


async def test_an_eviction_of_what_must_stay_says_why(it: It) -> None:
    """A private module is never evicted, and neither is what is pinned, gone elsewhere, or not here."""
    await it.behind.keep("git.corp.example/x", "v1.0.0")
    await it.behind.keep("example.com/x", "v1.0.0")
    it.behind.gone.add("example.com/x@v1.0.0")
    with pytest.raises(Conflict, match="only the notary vouches for it"):
        await it.ask.evict("git.corp.example/x", "v1.0.0", dry_run=False)
    with pytest.raises(Conflict, match="the upstream has it no more"):
        await it.ask.evict("example.com/x", "v1.0.0", dry_run=False)
    await it.ask.pin("example.com/x", "")
    with pytest.raises(Conflict, match=r"pinned by example\.com/x"):
        await it.ask.evict("example.com/x", "v1.0.0", dry_run=True)
    for version in ("v1.9.9", ""):
        with pytest.raises(NotFound):
            await it.ask.evict("example.com/y", version, dry_run=False)
    with pytest.raises(InvalidInput):
        await it.ask.evict("../../etc", "", dry_run=False)
    assert await it.behind.has("git.corp.example/x", "v1.0.0")
    assert await it.behind.has("example.com/x", "v1.0.0")


async def test_a_proxy_that_is_away(folder: Path) -> None:
    """No socket, a dead one, and nonsense behind it are an error that says where to look."""
    path = folder / "proxy.sock"
    async with RemoteOperations(path, where="look there") as ask:
        with pytest.raises(Unavailable, match="the module proxy does not answer: look there"):
            await ask.overview(STRANGER)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with pytest.raises(Unavailable, match="the module proxy does not answer: look there"):
            await ask.overview(STRANGER)
    path.unlink()
    async with (
        backend(ok(b"<html>"), unix=path),
        RemoteOperations(path, where="look there") as ask,
    ):
        with pytest.raises(Unavailable, match="the module proxy answers something strange: look there"):
            await ask.overview(STRANGER)


async def test_the_socket_takes_changes_as_posts_only(folder: Path) -> None:
    """GET changes nothing, an unknown path is absent, a limit out of range is named, and no word means a dry run."""
    behind = modules(folder)
    await behind.keep("example.com/x", "v1.0.0")
    async with administered(behind.operations, folder) as path:
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            for change in ("pin", "unpin", "evict"):
                assert (await client.get(f"/{change}", params={"module": "example.com/x"})).status_code == 404
            assert (await client.post("/overview")).status_code == 404
            refused = await client.get("/modules", params={"limit": "9999"})
            assert (refused.status_code, refused.json()["field"]) == (422, "limit")
            assert (await client.post("/evict", params={"module": "example.com/x"})).json()["dry_run"] is True
    assert await behind.has("example.com/x", "v1.0.0")
    assert await behind.pins.all() == []
