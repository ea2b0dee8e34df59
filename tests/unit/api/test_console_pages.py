"""The console's pages: what a browser without a script sees, and where its links lead."""

from urllib.parse import quote

import pytest

from mooring.model.routes import Route
from mooring.model.workspace import Phase
from mooring.routes.ports import SectionChange
from support.api import CONSOLE, PERSON, Api, ticket_of


async def test_a_stranger_is_told_how_to_sign_in(it: Api) -> None:
    """Without a session every page says what to type, and gives nothing away."""
    await it.workspace("bob", "secret-name")
    for path in ("/", "/open?url=http://secret-name--bob.localhost:8080/", "/open/0123456789"):
        page = await it.client().get(path, headers=PERSON)
        assert page.status_code == 401
        assert "mooring up" in page.text
        assert "mooring workspace open" in page.text
        assert "secret-name" not in page.text


async def test_the_list_has_ones_own_workspaces_with_a_way_in(it: Api) -> None:
    """One's workspaces are listed with phase, reason and button; not even an administrator's page has others'."""
    mine = await it.workspace("ada", "blue", Phase.running)
    stopped = await it.workspace("ada", "green")
    await it.workspace("ada", "azure")
    await it.workspace("bob", "not-mine")
    page = await (await it.browser("ada")).get("/")
    assert page.status_code == 200
    assert page.text.index(">azure<") < page.text.index(">blue<") < page.text.index(">green<")
    assert "blue" in page.text
    assert f'href="/open/{mine.id}"' in page.text
    assert f'action="/open/{stopped.id}/start"' in page.text
    assert "not-mine" not in page.text


async def test_what_failed_is_started_and_not_opened(it: Api) -> None:
    """It has its reason and a button that starts it; the way in would lead to a page that says it is stopped."""
    failed = await it.workspace("ada", "blue", Phase.failed)
    page = await (await it.browser("ada")).get("/")
    assert f'action="/open/{failed.id}/start"' in page.text
    assert f'href="/open/{failed.id}"' not in page.text


async def test_what_runs_with_a_failed_clone_says_so_beside_its_way_in(it: Api) -> None:
    """The reason of a workspace that runs: git's last words and what to do, below the name."""
    made = await it.workspace("ada", "blue", Phase.running)
    words = "git clone failed: a restart of the workspace tries again\nfatal: no"
    await it.stage.store.update(made.observed(Phase.running, words), expected=made.revision)
    page = await (await it.browser("ada")).get("/")
    assert f'<span class="why">{words}</span>' in page.text
    assert f'href="/open/{made.id}"' in page.text


async def test_what_went_wrong_is_a_sentence(it: Api) -> None:
    """A finding stands alone on its page: it begins with a capital letter and ends with a full stop."""
    page = await it.client().get("/.mooring/ticket?ticket=used")
    text = "The link has been used or has expired: mooring console or mooring workspace open makes a new one."
    assert (page.status_code, page.text.count(f"<p>{text}</p>")) == (401, 1)


async def test_a_mistyped_address_is_a_page(it: Api) -> None:
    """A browser gets a page with the way back where nothing is; a program, and whoever asks the API, the problem."""
    browser = await it.browser("ada")
    page = await browser.get("/nowhere")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is nothing at this path." in page.text
    assert f'href="{CONSOLE}' in page.text
    for path, accept in (("/nowhere", "*/*"), ("/api/v1/nowhere", "text/html")):
        refused = await browser.get(path, headers={"Accept": accept})
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


async def test_what_a_browser_shows_is_a_page(it: Api) -> None:
    """Bad input, a button that is pressed twice and another origin are pages for a person, problems for a program."""
    browser = await it.browser("ada")
    for method, path, status, said in (
        ("GET", f"/modules?q={'a' * 1025}", 422, "Q: must have at most 1024 characters."),
        ("GET", f"/.mooring/ticket?ticket={'a' * 201}", 422, "Ticket: must have at most 200 characters."),
        ("POST", "/.mooring/sign-out", 403, f"This must come from a page of {CONSOLE}."),
    ):
        page = await browser.request(method, path, headers=PERSON)
        assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
        assert said in page.text
        program = await browser.request(method, path, headers={"Accept": "*/*"})
        assert (program.status_code, program.headers["content-type"]) == (status, "application/problem+json"), path
    ours = PERSON | {"Origin": CONSOLE}
    assert "This browser is signed out." in (await browser.post("/.mooring/sign-out", headers=ours)).text
    again = await browser.post("/.mooring/sign-out", headers=ours)
    assert (again.status_code, "mooring console" in again.text) == (401, True)


async def test_pages_run_no_script_and_load_nothing(it: Api) -> None:
    """The policy forbids scripts, frames and foreign assets, and the page needs none."""
    page = await (await it.browser("ada")).get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text
    assert "http://" not in page.text.replace(CONSOLE, "")


async def test_what_a_workspace_says_is_text(it: Api) -> None:
    """A reason with markup in it is shown, not obeyed."""
    made = await it.workspace("ada")
    await it.stage.store.update(made.observed(Phase.failed, "<script>alert(1)</script>"), expected=made.revision)
    page = await (await it.browser("ada")).get("/")
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_open_signs_the_browser_in_at_the_workspace(it: Api) -> None:
    """Both forms of the link lead through a ticket to the path asked for."""
    made = await it.workspace("bob")
    browser = await it.browser("bob")
    wanted = "http://one--bob.localhost:8080/a%20b/?x=1&y=2"
    for path, end in (
        (f"/open/{made.id}", "/"),
        (f"/open?url={quote(wanted, safe='')}", "/a%20b/?x=1&y=2"),
        (f"/open?url={quote('http://one--bob.localhost:8080', safe='')}", "/"),
    ):
        response = await browser.get(path)
        assert response.status_code == 303, response.text
        host, secret = ticket_of(response.headers["location"])
        assert host == "one--bob.localhost"
        entered = await it.client(host=host).get("/.mooring/ticket", params={"ticket": secret})
        assert entered.headers["location"] == end


async def test_open_knows_ports_and_path_forms(it: Api) -> None:
    """A port's host and the path forms' host are origins of their own, with tickets of their own."""
    made = await it.workspace("bob")
    browser = await it.browser("bob")
    for url, host in (
        ("http://p3000--one--bob.localhost:8080/", "p3000--one--bob.localhost"),
        (f"http://ws.localhost:8080/ws/{made.id}/", "ws.localhost"),
    ):
        response = await browser.get("/open", params={"url": url})
        assert ticket_of(response.headers["location"])[0] == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "//evil.example/",
        "http://evil.example/",
        "http://evil.example:8080/",
        "https://one--bob.localhost:8080/",
        "http://one--bob.localhost/",
        "http://one--bob.localhost:8081/",
        "http://one--bob.localhost:8080@evil.example/",
        "http://evil@one--bob.localhost:8080/",
        "http://one--bob.localhost:8080.evil.example/",
        "http://one--bob.localhost.evil.example:8080/",
        "http://ONE--bob.localhost:8080/",
        "http://localhost:8080/",
        "http://evillocalhost:8080/",
        "http://[::1]:8080/",
        "http://[/",
        "javascript:alert(1)",
        "http://one--bob.localhost:8080/a\r\nSet-Cookie: x=y",
        "http://one--bob.localhost:8080//evil.example",
        "http://one--bob.localhost:8080/\\evil.example",
        "\x00http://one--bob.localhost:8080/",
    ],
)
async def test_open_is_no_open_redirect(it: Api, url: str) -> None:
    """Only an address of this installation, written as we write it, is followed; everything else is a page."""
    await it.workspace("bob")
    browser = await it.browser("bob")
    response = await browser.get("/open", params={"url": url})
    if response.status_code == 303:
        host, secret = ticket_of(response.headers["location"])
        assert host == "one--bob.localhost"
        entered = await it.client(host=host).get("/.mooring/ticket", params={"ticket": secret})
        assert entered.headers["location"].startswith("/")
        assert not entered.headers["location"].startswith(("//", "/\\"))
        assert entered.headers.get_list("set-cookie")[1:] == []
    else:
        assert response.status_code == 422
        assert "location" not in response.headers


async def test_open_knows_the_hosts_of_routes_that_the_caller_may_enter(it: Api) -> None:
    """A host outside our domain is followed only when a route that serves it lets the caller in."""
    route = {"name": "a", "host": "blue.example", "backends": [{"address": "10.0.0.1:80"}]}
    made = Route.model_validate(route | {"access": {"kind": "subjects", "subjects": ["bob"]}})
    it.services.table.apply(SectionChange("deploys", (made,)), 500)
    url = {"url": "http://blue.example:8080/x"}
    allowed = await (await it.browser("bob")).get("/open", params=url)
    assert ticket_of(allowed.headers["location"])[0] == "blue.example"
    refused = await (await it.browser("eve")).get("/open", params=url)
    assert refused.status_code == 422


async def test_open_does_not_tell_anothers_workspace_from_none(it: Api) -> None:
    """Another's workspace and one that does not exist give the same page."""
    other = await it.workspace("eve", "blue")
    browser = await it.browser("bob")
    pages = []
    for name in ("blue", "red"):
        response = await browser.get("/open", params={"url": f"http://{name}--eve.localhost:8080/"})
        pages.append((response.status_code, response.text.partition("<h1>")[2]))
    assert pages[0] == pages[1]
    assert pages[0][0] == 404
    assert (await browser.get(f"/open/{other.id}")).status_code == 404
    admin = await it.browser("ada")
    assert (await admin.get(f"/open/{other.id}")).status_code == 404


async def test_the_start_button_starts(it: Api) -> None:
    """The button's form works with the console's Origin, for one's own workspace only."""
    made, other = await it.workspace("bob"), await it.workspace("eve")
    browser = await it.browser("bob")
    response = await browser.post(f"/open/{made.id}/start", headers={"Origin": CONSOLE})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert (await it.stage.store.get(made.id)).desired == "running"
    refused = await browser.post(f"/open/{other.id}/start", headers={"Origin": CONSOLE})
    assert refused.status_code == 404
    assert (await it.stage.store.get(other.id)).desired == "stopped"


async def test_a_link_alone_signs_nobody_out(it: Api) -> None:
    """GET shows a button; only the POST from that page ends the session."""
    browser = await it.browser("bob")
    assert 'method="post"' in (await browser.get("/.mooring/sign-out")).text
    assert (await browser.get("/")).status_code == 200
