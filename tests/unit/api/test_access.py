"""Who gets in: tokens, cookies, tickets, origins; and what a hostile caller tries."""

import asyncio
import hmac
from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from mooring.model.grants import Claims, SigningKey, sign
from mooring.settings import Listen
from support.api import CONSOLE, GATEWAY_TOKEN, PERSON, Api, api, ticket_of

OPEN = {"/healthz", "/readyz"}
PAGES = {"/", "/open", "/open/{workspace_id}", "/modules"}
"""Of the console: a person without a session finds there how to get one."""


async def test_every_path_but_two_asks_for_a_credential(it: Api) -> None:
    """Without a token only the two health paths answer; pages say how to sign in, and everything else is 401."""
    client = it.client()
    asked = 0
    for path, method in paths_of(it):
        url = path.replace("{workspace_id}", "0123456789").replace("{port}", "80").replace("{", "").replace("}", "")
        body = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
        response = await client.request(method, url, **body, headers=PERSON)
        if path in OPEN:
            assert response.status_code == 200
        elif path == "/.mooring/sign-out" and method == "GET":
            assert response.status_code == 200
            assert "<button" in response.text
        else:
            assert response.status_code == 401, (method, path, response.text)
            assert method != "GET" or path not in PAGES or "mooring console</code> opens this page" in response.text
        asked += 1
    assert asked > 30
    assert {path for path, method in paths_of(it) if method == "GET"} >= PAGES


async def test_secrets_are_compared_in_constant_time(it: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a refusal takes tells nobody how much of a guess was right: of a session and of the gateways' token."""
    compared: list[object] = []

    def compare(one: bytes, other: bytes, real: Callable[[bytes, bytes], bool] = hmac.compare_digest) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    guess = {"Authorization": "Bearer " + "x" * len(GATEWAY_TOKEN)}
    assert (await it.client().get("/api/v1/gateway/sections", headers=guess)).status_code == 401
    assert compared == [GATEWAY_TOKEN.encode()]
    browser = await it.browser("bob")
    good = browser.headers["Cookie"].rpartition(".")[2]
    browser.headers["Cookie"] = browser.headers["Cookie"][: -len(good)] + "A" * len(good)
    assert (await browser.get("/api/v1/me")).status_code == 401
    assert compared[-1] == good


def paths_of(it: Api) -> list[tuple[str, str]]:
    """Every path and method of the application."""
    return [
        (context.path, method)
        for context in iter_route_contexts(it.app.routes)
        if isinstance(context.route, APIRoute)
        for method in sorted(context.route.methods or ())
    ]


@pytest.mark.parametrize(
    "header",
    ["", "Basic YTpi", "Bearer", "Bearer ", "Bearer x", "Bearer mrg_" + "A" * 43, "Bearer mrg_" + "A" * 100_000],
)
async def test_a_bad_authorization_header_is_refused(it: Api, header: str) -> None:
    """A credential that is absent, of another kind, too long or unknown is one and the same answer: 401."""
    response = await it.client().get("/api/v1/me", headers={"Authorization": header})
    assert response.status_code == 401
    assert response.json()["code"] == "unauthenticated"
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_bad_token_is_not_made_up_for_by_a_good_cookie(it: Api) -> None:
    """A caller that shows a token is judged by it."""
    browser = await it.browser("bob")
    response = await browser.get("/api/v1/me", headers={"Authorization": "Bearer mrg_" + "A" * 43})
    assert response.status_code == 401


async def test_a_token_expires_and_is_revoked(it: Api) -> None:
    """A token is good until its time or its revocation, whichever comes first."""
    bob = it.client("bob")
    made = (await bob.post("/api/v1/users/bob/tokens", json={"label": "ci", "expires_in_s": 60})).json()
    assert made["token"].startswith("mrg_")
    header = {"Authorization": f"Bearer {made['token']}"}
    assert (await it.client().get("/api/v1/me", headers=header)).json()["name"] == "bob"
    it.clock.ahead = 61
    assert (await it.client().get("/api/v1/me", headers=header)).status_code == 401
    it.clock.ahead = 0
    assert (await bob.delete(f"/api/v1/users/bob/tokens/{made['id']}")).status_code == 204
    assert (await it.client().get("/api/v1/me", headers=header)).status_code == 401
    listed = (await bob.get("/api/v1/users/bob/tokens")).json()["items"]
    assert made["id"] not in {token["id"] for token in listed}
    assert "token" not in listed[0]


async def test_a_short_lived_token_makes_no_longer_one(it: Api) -> None:
    """A token that ends in a minute cannot prolong itself by making another."""
    bob = it.client("bob")
    made = (await bob.post("/api/v1/users/bob/tokens", json={"expires_in_s": 60})).json()
    header = {"Authorization": f"Bearer {made['token']}"}
    other = (await it.client().post("/api/v1/users/bob/tokens", json={}, headers=header)).json()
    assert other["expires_at"] is not None
    assert other["expires_at"] <= made["expires_at"]


async def test_nobody_manages_anothers_tokens(it: Api) -> None:
    """A member's calls about somebody else, and about nobody, look alike."""
    eve = it.client("eve")
    for name in ("bob", "nobody"):
        for path, method in (("", "GET"), ("/tokens", "GET"), ("/tokens", "POST"), ("/sessions", "DELETE")):
            response = await eve.request(method, f"/api/v1/users/{name}{path}", json={})
            assert response.status_code == 404
            assert response.json()["detail"] == f"there is no user {name}"
    assert (await eve.get("/api/v1/users")).status_code == 403
    assert (await eve.post("/api/v1/users", json={"name": "mallory"})).status_code == 403
    assert (await eve.delete("/api/v1/users/bob")).status_code == 403


async def test_an_administrator_makes_and_removes_a_user(it: Api) -> None:
    """A removed user's token is refused at once; one with workspaces stays until these are gone."""
    ada = it.client("ada")
    assert (await ada.post("/api/v1/users", json={"name": "dan"})).status_code == 201
    assert (await ada.post("/api/v1/users", json={"name": "dan"})).status_code == 409
    token = (await ada.post("/api/v1/users/dan/tokens", json={})).json()["token"]
    dan = {"Authorization": f"Bearer {token}"}
    assert (await it.client().get("/api/v1/me", headers=dan)).json() == {
        "name": "dan",
        "role": "member",
        "credential": "token",
        "console_url": "http://localhost:8080/",
    }
    made = await it.workspace("dan")
    refused = await ada.delete("/api/v1/users/dan")
    assert refused.status_code == 409
    assert "1 workspace" in refused.json()["detail"]
    await it.stage.store.remove(made.id)
    assert (await ada.delete("/api/v1/users/dan")).status_code == 204
    assert (await it.client().get("/api/v1/me", headers=dan)).status_code == 401
    only = await ada.delete("/api/v1/users/ada")
    assert only.status_code == 409
    assert "only administrator" in only.json()["detail"]


@pytest.mark.parametrize("name", ["Ada", "a", "a--b", "xn", "mooring:probe", "a" * 21, "../x", "a\nb", "a.b", "ä"])
async def test_a_user_name_that_no_host_can_hold_is_refused(it: Api, name: str) -> None:
    """User names become host labels and cookie fields: the rule is stated, nothing is cut to fit."""
    response = await it.client("ada").post("/api/v1/users", json={"name": name})
    assert response.status_code == 422
    assert response.json()["field"] == "name"


async def test_a_ticket_is_a_cookie_once(it: Api) -> None:
    """Of two uses of one link the second says so; the cookie is for this host alone and cannot be read by a page."""
    made = await it.workspace("bob")
    link = (await it.client("bob").post(f"/api/v1/workspaces/{made.id}/ticket", json={"next": "/?a=b"})).json()
    host, secret = ticket_of(link["url"])
    browser = it.client(host=host)
    first = await browser.get("/.mooring/ticket", params={"ticket": secret})
    assert (first.status_code, first.headers["location"]) == (303, "/?a=b")
    cookie = first.headers["set-cookie"]
    assert cookie.startswith("__Host-mooring=v1.")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["referrer-policy"] == "no-referrer"
    second = await browser.get("/.mooring/ticket", params={"ticket": secret})
    assert second.status_code == 401
    assert "used or has expired" in second.text
    assert "set-cookie" not in second.headers


async def test_of_many_at_once_one_gets_the_ticket(it: Api) -> None:
    """A link that is opened twenty times at the same moment signs one browser in."""
    secret, _ = await it.services.accounts.issue_ticket("bob", host="localhost", path="/")
    client = it.client()
    results = list[int]()

    async def enter() -> None:
        results.append((await client.get("/.mooring/ticket", params={"ticket": secret})).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(enter())
    assert sorted(results) == [303] + [401] * 19


async def test_a_ticket_is_spent_by_another_host(it: Api) -> None:
    """A ticket that turned up at the wrong host has been seen by somebody: it is worth nothing anywhere."""
    secret, _ = await it.services.accounts.issue_ticket("bob", host="one--bob.localhost", path="/")
    wrong = await it.client(host="one--eve.localhost").get("/.mooring/ticket", params={"ticket": secret})
    assert wrong.status_code == 401
    right = await it.client(host="one--bob.localhost").get("/.mooring/ticket", params={"ticket": secret})
    assert right.status_code == 401


async def test_a_ticket_expires_after_a_minute(it: Api) -> None:
    """A link that nobody followed for a minute is dead."""
    secret, _ = await it.services.accounts.issue_ticket("bob", host="localhost", path="/")
    it.clock.ahead = 61
    assert (await it.client().get("/.mooring/ticket", params={"ticket": secret})).status_code == 401


@pytest.mark.parametrize("ticket", ["", "x", "a" * 199, "../../x", "%00", "'; drop table tickets; --"])
async def test_a_made_up_ticket_is_refused(it: Api, ticket: str) -> None:
    """Whatever is no ticket is answered like a spent one."""
    response = await it.client().get("/.mooring/ticket", params={"ticket": ticket})
    assert response.status_code == 401
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "/a\r\nSet-Cookie: x=y",
        "/a\nb",
        "/\t/evil.example",
        "/ü",
        "/" + "a" * 2048,
    ],
)
async def test_a_ticket_leads_nowhere_but_to_its_host(it: Api, path: str) -> None:
    """`next` is one path on the same host: no other host, no line break that would become a header."""
    made = await it.workspace("bob")
    response = await it.client("bob").post(f"/api/v1/workspaces/{made.id}/ticket", json={"next": path})
    assert response.status_code == 422
    assert response.json()["field"] == "next"


async def test_the_cookie_of_a_host_is_worth_nothing_at_another(it: Api) -> None:
    """A workspace's cookie does not open the console, nor the other way round."""
    await it.workspace("bob")
    browser = await it.browser("bob", host="one--bob.localhost")
    assert (await browser.get("/api/v1/me", headers={"Host": "localhost:8080"})).status_code == 401
    console = await it.browser("bob")
    moved = await console.get("/.mooring/events", headers={"Host": "one--bob.localhost:8080"})
    assert moved.status_code == 401


async def test_forged_expired_and_mangled_cookies_are_refused(it: Api) -> None:
    """Only what one of our keys signed, for this host and this time, and what is still in the store, is a session."""
    browser = await it.browser("bob")
    name, _, good = browser.headers["Cookie"].partition("=")
    keys = (await it.services.accounts.grants()).keys
    later = int(it.clock.now()) + 3600
    forged = {
        "another's key": sign(Claims("s" * 32, "bob", "localhost", later), SigningKey(keys[0].id, b"x" * 32, later)),
        "no such session": sign(Claims("s" * 32, "bob", "localhost", later), keys[0]),
        "another subject": sign(Claims(good.split(".")[2], "ada", "localhost", later), keys[0]),
        "another audience": sign(Claims(good.split(".")[2], "bob", "one--bob.localhost", later), keys[0]),
        "expired": sign(Claims(good.split(".")[2], "bob", "localhost", int(it.clock.now()) - 1), keys[0]),
        "cut": good[:-1],
        "longer": good + "A",
        "empty": "",
        "dots": "." * 6,
        "long": "v1." + "a" * 5000,
    }
    assert (await browser.get("/api/v1/me")).json()["credential"] == "session"
    for what, value in forged.items():
        response = await it.client().get("/api/v1/me", headers={"Cookie": f"{name}={value}"})
        assert response.status_code == 401, what
    plain = await it.client().get("/api/v1/me", headers={"Cookie": f"mooring={good}"})
    assert plain.status_code == 401, "a name that a neighbour could set is not read where __Host- works"


async def test_a_cookie_expires_by_itself(it: Api) -> None:
    """After a week a browser signs in again."""
    browser = await it.browser("bob")
    it.clock.ahead = 7 * 86400 + 1
    assert (await browser.get("/api/v1/me")).status_code == 401


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://one--bob.localhost:8080", "http://localhost", CONSOLE + "/"]
)
async def test_a_page_of_another_origin_changes_nothing(it: Api, origin: str | None) -> None:
    """A browser sends cookies along with what other pages make it send: the Origin must be the console's own."""
    made = await it.workspace("bob")
    browser = await it.browser("bob")
    headers = {"Origin": origin} if origin else {}
    for method, path, body in (
        ("POST", f"/api/v1/workspaces/{made.id}/start", None),
        ("DELETE", f"/api/v1/workspaces/{made.id}", None),
        ("PATCH", f"/api/v1/workspaces/{made.id}", {"name": "two"}),
        ("POST", "/api/v1/users/bob/tokens", {}),
        ("POST", f"/open/{made.id}/start", None),
        ("POST", "/.mooring/sign-out", None),
    ):
        response = await browser.request(method, path, json=body, headers=headers)
        assert response.status_code == 403, (path, response.text)
    assert (await it.stage.store.get(made.id)).revision == made.revision


async def test_the_consoles_own_page_changes_things(it: Api) -> None:
    """With the console's Origin the cookie is as good as a token; a token needs no Origin."""
    made = await it.workspace("bob")
    browser = await it.browser("bob")
    path = f"/api/v1/workspaces/{made.id}"
    ours = await browser.patch(path, json={"name": "two"}, headers={"Origin": CONSOLE})
    assert ours.status_code == 200
    token = await it.client("bob").patch(path, json={"name": "three"}, headers={"Origin": "http://evil.example"})
    assert token.status_code == 200


async def test_signing_out_at_the_console_ends_what_was_opened_from_it(it: Api) -> None:
    """The sessions that a session opened end with it; another browser of the same person stays signed in."""
    made = await it.workspace("bob")
    browser, other = await it.browser("bob"), await it.browser("bob")
    opened = await browser.get(f"/open/{made.id}")
    host, secret = ticket_of(opened.headers["location"])
    inside = it.client(host=host)
    entered = await inside.get("/.mooring/ticket", params={"ticket": secret})
    session = entered.headers["set-cookie"].partition("=")[2].split(".")[2]
    signed_out = await browser.post("/.mooring/sign-out", headers={"Origin": CONSOLE})
    assert signed_out.status_code == 200
    assert "Max-Age=0" in signed_out.headers["set-cookie"]
    assert (await browser.get("/api/v1/me")).status_code == 401
    assert session in dict((await it.services.accounts.grants()).revoked)
    assert (await other.get("/api/v1/me")).status_code == 200


async def test_a_ticket_of_a_session_that_ended_is_worth_nothing(it: Api) -> None:
    """Signing out also ends the links that were made and not yet followed."""
    made = await it.workspace("bob")
    browser = await it.browser("bob")
    host, secret = ticket_of((await browser.get(f"/open/{made.id}")).headers["location"])
    await browser.post("/.mooring/sign-out", headers={"Origin": CONSOLE})
    assert (await it.client(host=host).get("/.mooring/ticket", params={"ticket": secret})).status_code == 401


async def test_signing_out_everywhere_ends_every_browser(it: Api) -> None:
    """One call ends all sessions of a person and leaves the tokens."""
    browser = await it.browser("bob")
    assert (await it.client("bob").delete("/api/v1/users/bob/sessions")).status_code == 204
    assert (await browser.get("/api/v1/me")).status_code == 401
    assert (await it.client("bob").get("/api/v1/me")).status_code == 200


async def test_without_loopback_names_and_tls_the_cookie_is_plain(it: Api) -> None:
    """On a plain HTTP domain browsers drop Secure cookies, so there the plain name is used, and with TLS not."""
    assert it.services.listen.domain == "localhost"
    for listen, name in (
        (Listen(address="0.0.0.0", domain="dev.example"), "mooring="),  # noqa: S104
        (Listen(domain="dev.example", tls=True), "__Host-mooring="),
    ):
        async with api(listen=listen, domain="dev.example") as other:
            secret, _ = await other.services.accounts.issue_ticket("bob", host="dev.example", path="/")
            entered = await other.client(host="dev.example").get("/.mooring/ticket", params={"ticket": secret})
            cookie = entered.headers["set-cookie"]
            assert cookie.startswith(name)
            assert ("Secure" in cookie) == listen.tls
            me = await other.client(host="dev.example").get("/api/v1/me", headers={"Cookie": cookie.partition(";")[0]})
            assert me.json()["name"] == "bob"


async def test_a_cookie_that_a_neighbour_put_there_signs_nobody_out(it: Api) -> None:
    """Without TLS a page below the same domain can set the plain cookie for all of it; ours still counts."""
    assert it.services.listen.domain == "localhost"
    async with api(listen=Listen(address="0.0.0.0", domain="dev.example"), domain="dev.example") as other:  # noqa: S104
        secret, _ = await other.services.accounts.issue_ticket("bob", host="dev.example", path="/")
        entered = await other.client(host="dev.example").get("/.mooring/ticket", params={"ticket": secret})
        good = entered.headers["set-cookie"].partition(";")[0]
        for header, status in (
            (f"mooring=tossed; {good}", 200),
            (f"{good}; mooring=tossed", 200),
            ("mooring=a; mooring=b", 401),
            ("mooring=tossed; " * 20 + good, 401),
        ):
            me = await other.client(host="dev.example").get("/api/v1/me", headers={"Cookie": header})
            assert me.status_code == status


async def test_the_gateways_credential_opens_the_gateways_paths_only(it: Api) -> None:
    """Neither an administrator is a gateway, nor a gateway an administrator."""
    ada = await it.client("ada").get("/api/v1/gateway/listeners/0123456789/80")
    assert ada.status_code == 401
    gateway = it.client()
    gateway.headers["Authorization"] = "Bearer the-gateways-own"
    assert (await gateway.get("/api/v1/gateway/listeners/0123456789/80")).status_code == 404
    assert (await gateway.get("/api/v1/users")).status_code == 401


async def test_the_probes_token_is_known_to_gateways_and_opens_nothing_here(it: Api) -> None:
    """The readiness probe goes through the gateway; the API does not know it."""
    accounts = it.services.accounts
    assert "mooring:probe" in {grant.subject for grant in (await accounts.grants()).tokens}
    response = await it.client().get("/api/v1/me", headers={"Authorization": f"Bearer {accounts.probe_token}"})
    assert response.status_code == 401
