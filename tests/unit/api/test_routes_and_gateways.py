"""Routes, published sections, what gateways say, health and metrics."""

from pathlib import Path
from typing import Any

import pytest

from mooring.model.routes import Route
from mooring.model.workspace import Phase
from mooring.routes.ports import SectionChange
from support.api import GATEWAY_TOKEN, Api, api

REPORT: dict[str, Any] = {
    "gateway": "gw-1",
    "applied": ["epoch", 41],
    "sources": {"workspaces": 0.2, "redis": None},
    "activity": {"0123456789": 1732170000.0},
    "connections": {"0123456789": 2},
    "nginx": {"workers": [10, 11], "restarts": 1},
    "metrics": '# TYPE mooring_requests_total counter\nmooring_requests_total{route="a"} 3\nup 1\nbroken line {\n',
    "new key": "of a newer gateway",
}


def route(name: str, **more: object) -> dict[str, Any]:
    """A route as JSON."""
    return {"name": name, "host": f"{name}.example", "backends": [{"address": "10.0.0.1:80"}]} | more


async def test_a_program_publishes_a_section(it: Api) -> None:
    """A section is served as a whole, replaced as a whole, listed, and withdrawn."""
    ada = it.client("ada")
    path = "/api/v1/routes/sections/deploys"
    made = await ada.put(path, json={"rank": 300, "routes": [route("blue"), route("green")]})
    expected = {"source": "deploys", "rank": 300, "routes": 2, "published": True, "lost": 0, "gateway": None}
    assert made.json() == expected
    await ada.put(path, json={"routes": [route("green")]})
    assert [key.name for key in it.services.table.routes() if key.source == "deploys"] == ["green"]
    listed = (await ada.get("/api/v1/routes/sections")).json()["items"]
    assert [(item["source"], item["published"]) for item in listed] == [("deploys", True)]
    assert (await ada.delete(path)).status_code == 204
    assert (await ada.delete(path)).status_code == 404
    assert not it.services.table.routes()


async def test_published_sections_are_there_after_a_restart(it: Api) -> None:
    """What was published is put into the table again at the next start."""
    await it.client("ada").put("/api/v1/routes/sections/deploys", json={"routes": [route("blue")]})
    it.services.table.apply(SectionChange("deploys", complete=True), 500)
    await it.services.publisher.restore()
    assert [key.name for key in it.services.table.routes()] == ["blue"]


@pytest.mark.parametrize(
    ("source", "body", "status", "field"),
    [
        ("workspaces", {}, 409, "source"),
        ("redis", {}, 409, "source"),
        ("Deploys", {}, 422, "source"),
        ("a.b", {}, 422, "source"),
        ("deploys", {"rank": 99}, 422, "rank"),
        ("deploys", {"rank": 1001}, 422, "rank"),
        ("deploys", {"routes": [route("a"), route("a", host="b.example")]}, 422, "routes.1.name"),
        ("deploys", {"routes": [route("a", host="localhost")]}, 422, "routes.0.host"),
        ("deploys", {"routes": [route("a", workspace="0123456789")]}, 422, "routes.0.workspace"),
        ("deploys", {"routes": [route("a", host="a b")]}, 422, "routes.0.host"),
        ("deploys", {"routes": [route("a", path="/%2e%2e/")]}, 422, "routes.0.path"),
        ("deploys", {"routes": [route("a", path="/.mooring/x")]}, 422, "routes.0.path"),
        ("deploys", {"routes": [route("a", path="/a\n")]}, 422, "routes.0.path"),
        ("deploys", {"routes": [route("a", path='/"; return 200; #')]}, 422, "routes.0.path"),
        ("deploys", {"routes": [route("a", acces={})]}, 422, "routes.0.acces"),
        ("deploys", {"routes": [route("a", backends=[])]}, 422, "routes.0"),
    ],
)
async def test_a_section_that_nobody_may_publish_is_refused(
    it: Api, source: str, body: dict[str, Any], status: int, field: str
) -> None:
    """Built-in names and ranks, the console's host, and values that are no route: refused whole, with the field."""
    response = await it.client("ada").put(f"/api/v1/routes/sections/{source}", json=body)
    assert response.status_code == status, response.text
    assert response.json()["field"] == field
    assert not it.services.table.routes()


async def test_the_table_says_who_lost(it: Api) -> None:
    """Of two routes that match the same, the one that is not served names the winner."""
    ada = it.client("ada")
    same = route("blue", host="same.example")
    await ada.put("/api/v1/routes/sections/first", json={"rank": 200, "routes": [same]})
    await ada.put("/api/v1/routes/sections/second", json={"rank": 300, "routes": [same]})
    seen, cursor = [], None
    for _ in range(3):
        query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await ada.get("/api/v1/routes", params=query)).json()
        seen += [(item["source"], item["lost_to"]) for item in page["items"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == [("first", None), ("second", {"source": "first", "name": "blue"})]


async def test_a_member_sees_the_routes_that_they_may_enter(it: Api) -> None:
    """Routes for other subjects, sections, and addresses behind the gateway are not shown to a member."""
    routes = [
        Route.model_validate(route("hers", access={"kind": "subjects", "subjects": ["eve"]})),
        Route.model_validate(route("his", access={"kind": "subjects", "subjects": ["bob"]})),
        Route.model_validate(
            route("open", access={"kind": "public"}, filters={"mirror": {"backend": {"address": "10.0.0.9:80"}}})
        ),
    ]
    it.services.table.apply(SectionChange("workspaces", tuple(routes)), 10)
    bob = it.client("bob")
    seen = (await bob.get("/api/v1/routes")).json()["items"]
    assert [item["name"] for item in seen] == ["his", "open"]
    assert [item["route"]["backends"] for item in seen] == [[], []]
    assert [item["route"]["filters"]["mirror"] for item in seen] == [None, None]
    assert (await bob.get("/api/v1/routes/sections")).status_code == 403
    assert (await bob.put("/api/v1/routes/sections/x", json={})).status_code == 403


async def report(it: Api, body: dict[str, Any]) -> int:
    """Send a report as a gateway does."""
    client = it.client()
    headers = {"Authorization": f"Bearer {GATEWAY_TOKEN}"}
    return (await client.post("/api/v1/gateway/report", json=body, headers=headers)).status_code


async def test_a_report_tells_activity_readiness_and_metrics(it: Api) -> None:
    """A gateway's report is seen in the idle rule's input, in /readyz and in /metrics; unknown keys are ignored."""
    assert await report(it, REPORT) == 204
    assert it.services.reports.input_at("0123456789") == 1732170000.0
    assert it.services.reports.connections("0123456789") == 2
    health = (await it.client().get("/readyz")).json()
    watches = {watch["name"]: watch for watch in health["watches"]}
    assert health["ready"]
    assert watches["database"]["ok"]
    assert watches["gateway/gw-1"]["ok"]
    assert watches["gateway/gw-1/redis"] == {
        "name": "gateway/gw-1/redis",
        "age_s": None,
        "most_s": 30.0,
        "ok": False,
        "required": False,
        "starting": False,
    }
    text = (await it.client("ada").get("/metrics")).text
    assert 'mooring_requests_total{gateway="gw-1",route="a"} 3' in text
    assert 'up{gateway="gw-1"} 1' in text
    assert "broken" not in text
    assert 'mooring_api_requests_total{method="POST",path="/api/v1/gateway/report",status="204"} 1.0' in text
    assert (await it.client("bob").get("/metrics")).status_code == 403


async def test_a_gateways_own_sections_are_listed(it: Api) -> None:
    """What comes from a gateway's file or Redis stands in the list with its gateway, and who lost there is counted."""
    ada = it.client("ada")
    await ada.put("/api/v1/routes/sections/deploys", json={"routes": [route("blue")]})
    sections = {
        "deploys": {"rank": 500, "routes": 1, "lost": 1},
        "file": {"rank": 20, "routes": 7, "lost": 0},
    }
    assert await report(it, {"gateway": "gw-1", "sections": sections}) == 204
    assert (await ada.get("/api/v1/routes/sections")).json()["items"] == [
        {"source": "deploys", "rank": 500, "routes": 1, "published": True, "lost": 1, "gateway": None},
        {"source": "file", "rank": 20, "routes": 7, "published": False, "lost": 0, "gateway": "gw-1"},
    ]


async def tell_table(it: Api, gateway: str, version: str, *names: str, **more: object) -> None:
    """A gateway's report with its version, and its table when the server wants it: file routes of these names."""
    sections = {"file": {"rank": 20, "routes": len(names), "lost": 0}}
    sized = {"gateway": gateway, "sections": sections, "table": version}
    if await report(it, sized) == 204:
        return
    own = {"file": {"rank": 20, "routes": [route(name) for name in names]}}
    body = {"gateway": gateway, "version": version, "sections": own} | more
    headers = {"Authorization": f"Bearer {GATEWAY_TOKEN}"}
    assert (await it.client().put("/api/v1/gateway/table", json=body, headers=headers)).status_code == 204
    assert await report(it, sized) == 204


async def test_the_table_is_listed_as_it_is_at_the_gateways(it: Api) -> None:
    """Routes of a gateway's own file stand among the server's, page by page, with who lost to whom on either side."""
    ada = it.client("ada")
    await ada.put("/api/v1/routes/sections/deploys", json={"routes": [route("blue"), route("same")]})
    lost = {"loser": {"source": "deploys", "name": "same"}, "winner": {"source": "file", "name": "same"}}
    await tell_table(it, "gw-1", "a-1", "same", "wiki", conflicts=[lost])
    await tell_table(it, "gw-2", "b-1", "wiki")
    seen, cursor = [], None
    for _ in range(9):
        query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await ada.get("/api/v1/routes", params=query)).json()
        seen += [(i["source"], i["name"], i["gateway"], i["rank"], i["lost_to"] is not None) for i in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert seen == [
        ("deploys", "blue", None, 500, False),
        ("deploys", "same", None, 500, True),
        ("file", "same", "gw-1", 20, False),
        ("file", "wiki", "gw-1", 20, False),
        ("file", "wiki", "gw-2", 20, False),
    ]
    bob = (await it.client("bob").get("/api/v1/routes")).json()["items"]
    assert [item["route"]["backends"] for item in bob] == [[]] * 5
    await tell_table(it, "gw-1", "a-2", "wiki")
    assert await report(it, {"gateway": "gw-2"}) == 204
    items = (await ada.get("/api/v1/routes")).json()["items"]
    assert [(i["name"], i["gateway"], i["lost_to"]) for i in items] == [
        ("blue", None, None),
        ("same", None, None),
        ("wiki", "gw-1", None),
    ]


@pytest.mark.parametrize("cursor", ["eA", "eAp4", "eAp4CngKeA", "%"])
async def test_a_cursor_that_no_page_had_is_refused(it: Api, cursor: str) -> None:
    """Also one of too few or too many parts."""
    response = await it.client("ada").get("/api/v1/routes", params={"cursor": cursor})
    assert (response.status_code, response.json()["field"]) == (422, "cursor")


async def test_what_is_wrong_at_a_gateway_is_told_to_administrators(it: Api) -> None:
    """Everybody sees that something is wrong; what it is, with names and addresses, only an administrator."""
    await report(it, {"gateway": "gw-1", "problems": ["redis: 10.0.0.7:6379 does not answer"]})
    for who in (None, "bob"):
        health = (await it.client(who).get("/readyz")).json()
        assert (health["problem_count"], health["problems"]) == (1, [])
    health = (await it.client("ada").get("/readyz")).json()
    assert health["problems"] == ["gateway/gw-1: redis: 10.0.0.7:6379 does not answer"]
    client = it.client()
    assert (await client.get("/readyz", headers={"Authorization": "Bearer wrong"})).status_code == 200


async def test_pages_of_a_large_table_hold_every_route_once(it: Api) -> None:
    """Page by page, in the order of source and name, nothing is left out or comes twice."""
    for source in ("a", "b"):
        routes = tuple(Route.model_validate(route(f"r{number}")) for number in range(250))
        it.services.table.apply(SectionChange(source, routes, complete=True), 500)
    ada, cursor, seen = it.client("ada"), None, []
    while True:
        page = (await ada.get("/api/v1/routes", params={"limit": 90} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [(item["source"], item["name"]) for item in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen) == 500


async def test_two_gateways_metrics_stand_together(it: Api) -> None:
    """A family that several gateways report is one family, as Prometheus wants it."""
    for gateway in ("gw-1", "gw-2"):
        await report(it, REPORT | {"gateway": gateway})
    lines = (await it.client("ada").get("/metrics")).text.splitlines()
    start = lines.index("# TYPE mooring_requests_total counter")
    assert lines[start + 1 : start + 3] == [
        'mooring_requests_total{gateway="gw-1",route="a"} 3',
        'mooring_requests_total{gateway="gw-2",route="a"} 3',
    ]
    assert lines.count("# TYPE mooring_requests_total counter") == 1


async def test_activity_never_lies_in_the_future(it: Api) -> None:
    """A gateway whose clock is ahead keeps nothing awake."""
    await report(it, REPORT | {"activity": {"0123456789": it.clock.now() + 10_000}})
    assert it.services.reports.input_at("0123456789") <= it.clock.now()


@pytest.mark.parametrize("body", [{}, {"gateway": "a b"}, {"gateway": "x" * 65}, REPORT | {"applied": ["epoch", "x"]}])
async def test_a_report_that_is_none_is_refused(it: Api, body: dict[str, Any]) -> None:
    """A gateway's name becomes a label; the rest has types."""
    assert await report(it, body) == 422


async def test_a_listener_is_told_while_it_belongs_to_the_workspace(it: Api) -> None:
    """The gateway learns the address of a port that the workspace's own processes serve, and of no other."""
    made = await it.stage.create()
    await it.stage.until(made.id, Phase.running)
    it.stage.runtime.world.listeners[(made.id, 3000)] = "127.0.0.1:3000"
    client = it.client()
    client.headers["Authorization"] = f"Bearer {GATEWAY_TOKEN}"
    found = await client.get(f"/api/v1/gateway/listeners/{made.id}/3000")
    assert found.json() == {"address": "127.0.0.1:3000"}
    for path in (f"{made.id}/3001", "zzzzzzzzzz/3000", "x/3000"):
        assert (await client.get(f"/api/v1/gateway/listeners/{path}")).status_code == 404
    for port in ("0", "65536", "x"):
        assert (await client.get(f"/api/v1/gateway/listeners/{made.id}/{port}")).status_code == 422


async def test_the_metrics_hold_no_path_that_a_caller_made_up(it: Api) -> None:
    """Paths that do not exist are counted as one, others as they are described, so that nobody fills the memory."""
    client, stranger = it.client("ada"), it.client()
    for number in range(5):
        for path in ("/modules", "/api/v1/modules", "/open", "/api/v1/users"):
            await stranger.get(f"{path}/made-up-{number}/with/slashes")
            await stranger.get(f"{path}/made-up-{number}")
        await client.get(f"/made-up-{number}")
        await client.get(f"/api/v1/templates/made-up-{number}")
        await client.request(f"MADE-UP-{number}", "/api/v1/me")
        await stranger.post(f"/api/v1/made-up-{number}")
        await stranger.post("/api/v1/gateway/report", json={})
    text = (await client.get("/metrics")).text
    assert "made-up" not in text.lower()
    assert 'mooring_api_requests_total{method="GET",path="/api/v1/modules/{module:path}",status="401"} 10.0' in text
    assert 'mooring_api_requests_total{method="GET",path="/api/v1/users/{name}",status="401"} 5.0' in text
    assert 'mooring_api_requests_total{method="any",path="unknown",status="404"} 15.0' in text
    assert 'mooring_api_requests_total{method="any",path="refused",status="401"} 10.0' in text


async def test_mistakes_of_templates_are_for_administrators(tmp_path: Path) -> None:
    """File, line and key of what is no template; a workspace made from it says the same to whoever asks for it."""
    (tmp_path / "ours.toml").write_text('version = "x"\n[editor]\ncommand = ["x"]\n')
    async with api(team=tmp_path) as it:
        mistakes = (await it.client("ada").get("/api/v1/templates")).json()["mistakes"]
        assert [mistake.split(": ")[:2] for mistake in mistakes] == [["ours.toml:1", "version"]]
        assert (await it.client("bob").get("/api/v1/templates")).json()["mistakes"] == []
        refused = await it.client("bob").post("/api/v1/workspaces", json={"name": "one", "template": "ours"})
        assert refused.status_code == 422
        assert refused.json()["code"] == "bad_template"
        assert refused.json()["detail"] == mistakes[0]


async def test_templates_are_listed_and_shown(it: Api) -> None:
    """The shipped templates are there for everybody."""
    client = it.client("bob")
    page = (await client.get("/api/v1/templates")).json()
    assert {"code-server", "go"} <= {item["name"] for item in page["items"]}
    shown = await client.get("/api/v1/templates/code-server")
    assert shown.json()["name"] == "code-server"
    for name, status in (("none", 404), ("..%2fx", 404)):
        assert (await client.get(f"/api/v1/templates/{name}")).status_code in (status, 422)
