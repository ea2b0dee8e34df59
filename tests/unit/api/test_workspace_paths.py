"""Workspaces over HTTP: create, look, change, start, stop, enter."""

import asyncio

import pytest

from mooring.model.workspace import Phase
from mooring.workspaces.pages import Owned
from support.api import Api, ticket_of


async def test_a_created_workspace_has_a_place_urls_and_an_entity_tag(it: Api) -> None:
    """The answer to a creation says where the workspace is and what it looks like."""
    response = await it.client("ada").post(
        "/api/v1/workspaces", json={"name": "one", "template": "light", "limits": {"memory": "512Mi"}}
    )
    document = response.json()
    assert response.status_code == 201, document
    assert response.headers["location"] == f"/api/v1/workspaces/{document['id']}"
    assert response.headers["etag"] == f'"{document["revision"]}"'
    assert document["url"] == "http://one--ada.localhost:8080/"
    assert document["path_url"] == f"http://ws.localhost:8080/ws/{document['id']}/"
    assert document["port_url"] == "http://p{port}--one--ada.localhost:8080/"
    assert document["limits"]["memory"] == "512Mi"
    assert document["limits_in_force"]["cpu"] == "not limited"
    assert document["owner"] == "ada"


async def test_a_workspace_runs_and_says_when_it_would_stop(it: Api) -> None:
    """The running workspace's document explains the idle rule."""
    client = it.client("ada")
    document = (await client.post("/api/v1/workspaces", json={"name": "one", "template": "light"})).json()
    await it.stage.until(document["id"], Phase.running)
    document = (await client.get(f"/api/v1/workspaces/{document['id']}")).json()
    assert document["phase"] == "running"
    assert document["idle_status"]["stops_at"].endswith("Z")
    assert "min after the last" in document["idle_status"]["why"]


async def test_pages_of_workspaces_go_through_all_of_them_once(it: Api) -> None:
    """Following the cursor lists every workspace of the caller, and only those."""
    mine = {(await it.workspace("bob", f"one{n}")).id for n in range(5)}
    await it.workspace("eve")
    client, cursor, seen = it.client("bob"), None, list[str]()
    for _ in range(10):
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/v1/workspaces", params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(mine)


async def test_a_workspace_is_found_by_its_name(it: Api) -> None:
    """`name` narrows the list to the one of that name; an absent one is an empty list."""
    made = await it.workspace("bob", "blue")
    client = it.client("bob")
    found = (await client.get("/api/v1/workspaces", params={"name": "blue"})).json()
    assert [item["id"] for item in found["items"]] == [made.id]
    assert (await client.get("/api/v1/workspaces", params={"name": "red"})).json()["items"] == []


async def test_an_administrator_sees_everybodys_and_those_of_one_owner(it: Api) -> None:
    """Without an owner an administrator's list has all, with one only theirs."""
    bob, eve = await it.workspace("bob"), await it.workspace("eve")
    client = it.client("ada")
    everybody = (await client.get("/api/v1/workspaces")).json()["items"]
    assert {item["id"] for item in everybody} == {bob.id, eve.id}
    one = (await client.get("/api/v1/workspaces", params={"owner": "eve"})).json()["items"]
    assert [item["id"] for item in one] == [eve.id]


async def test_a_change_with_an_old_entity_tag_is_refused(it: Api) -> None:
    """If-Match makes the second of two people see that the first was there."""
    made = await it.workspace("bob")
    client, path = it.client("bob"), f"/api/v1/workspaces/{made.id}"
    tag = (await client.get(path)).headers["etag"]
    first = await client.patch(path, json={"name": "two"}, headers={"If-Match": tag})
    assert first.status_code == 200
    assert first.json()["url"].startswith("http://two--bob.")
    second = await client.patch(path, json={"name": "three"}, headers={"If-Match": tag})
    assert second.status_code == 412
    assert second.json()["code"] == "stale_revision"
    assert (await client.patch(path, json={"name": "three"}, headers={"If-Match": "*"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "end", "body"),
    [
        ("PATCH", "", {"name": "three"}),
        ("DELETE", "", None),
        ("POST", "/start", None),
        ("POST", "/stop", None),
        ("POST", "/restart", None),
        ("POST", "/keep-awake", {"for_s": 7200}),
        ("POST", "/template", {}),
    ],
)
async def test_each_change_heeds_what_its_caller_saw(
    it: Api, method: str, end: str, body: dict[str, object] | None
) -> None:
    """Whatever is asked of a workspace that somebody else has changed since, nothing comes of it."""
    made = await it.workspace("bob")
    client, path = it.client("bob"), f"/api/v1/workspaces/{made.id}"
    assert (await client.patch(path, json={"name": "two"})).status_code == 200
    before = await it.stage.store.get(made.id)
    answer = await client.request(method, path + end, json=body, headers={"If-Match": f'"{made.revision}"'})
    assert (answer.status_code, answer.json()["code"]) == (412, "stale_revision")
    assert await it.stage.store.get(made.id) == before


@pytest.mark.parametrize("tag", ['W/"1"', '"abc"', "1", '""'])
async def test_a_tag_that_is_none_of_ours_never_matches(it: Api, tag: str) -> None:
    """An entity tag in another form is a mismatch, not an excuse to write."""
    made = await it.workspace("bob")
    response = await it.client("bob").delete(f"/api/v1/workspaces/{made.id}", headers={"If-Match": tag})
    assert response.status_code == 412


async def test_start_stop_restart_keep_awake_and_delete(it: Api) -> None:
    """Each action answers with the workspace as it is wanted now."""
    client = it.client("ada")
    made = (await client.post("/api/v1/workspaces", json={"name": "one", "template": "light"})).json()
    path = f"/api/v1/workspaces/{made['id']}"
    await it.stage.until(made["id"], Phase.running)
    awake = await client.post(f"{path}/keep-awake", json={"for_s": 7200})
    assert awake.status_code == 200
    assert awake.json()["idle_status"]["awake_until"]
    assert (await client.post(f"{path}/restart")).json()["generation"] == 2
    await it.stage.until(made["id"], Phase.running)
    assert (await client.post(f"{path}/stop")).json()["desired"] == "stopped"
    await it.stage.until(made["id"], Phase.stopped)
    assert (await client.post(f"{path}/start")).json()["desired"] == "running"
    assert (await client.post(f"{path}/template", json={})).status_code == 200
    gone = await client.delete(path)
    assert gone.status_code == 202
    assert gone.json()["desired"] == "deleted"


async def test_a_ticket_leads_to_the_workspace_a_port_or_the_path_form(it: Api) -> None:
    """One-time links are made for each of the three origins, and lead to the path asked for."""
    made = await it.workspace("bob")
    client, path = it.client("bob"), f"/api/v1/workspaces/{made.id}/ticket"
    for body, host, end in (
        ({"next": "/?folder=/x"}, "one--bob.localhost", "/?folder=/x"),
        ({"port": 3000}, "p3000--one--bob.localhost", "/"),
        ({"path_form": True, "next": "/a"}, "ws.localhost", f"/ws/{made.id}/a"),
        ({"path_form": True, "port": 80}, "ws.localhost", f"/ws/{made.id}/ports/80/"),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 201, response.text
        where, secret = ticket_of(response.json()["url"])
        assert where == host
        entered = await it.client(host=host).get("/.mooring/ticket", params={"ticket": secret})
        assert (entered.status_code, entered.headers["location"]) == (303, end)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("end", ["", "/start", "/stop", "/events", "/logs", "/ticket", "/exec"])
async def test_anothers_workspace_and_none_look_alike(it: Api, method: str, end: str) -> None:
    """Whoever may not know of a workspace gets, byte for byte, what they get for one that does not exist."""
    made = await it.workspace("eve")
    client = it.client("bob")
    method = {"/start": "POST", "/stop": "POST", "/ticket": "POST"}.get(end, "GET" if end else method)
    answers = []
    for workspace_id in (made.id, "0123456789"):
        body = {"json": {}} if method in ("PATCH", "POST") else {}
        answer = await client.request(method, f"/api/v1/workspaces/{workspace_id}{end}", **body)
        answers.append((answer.status_code, answer.content))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_an_administrator_sees_anothers_workspace_and_does_not_enter_it(it: Api) -> None:
    """To manage is not to enter: a ticket and a command are for the owner."""
    made = await it.workspace("bob")
    client = it.client("ada")
    assert (await client.get(f"/api/v1/workspaces/{made.id}")).status_code == 200
    assert (await client.post(f"/api/v1/workspaces/{made.id}/ticket", json={})).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "Not-Allowed"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "one", "limits": {"memory": "lots"}}, "limits.memory"),
        ({"name": "one", "limits": {"cpu": -1}}, "limits.cpu"),
        ({"name": "one", "environment": {"A": "x\u0000y"}}, "environment"),
        ({"name": "one", "environment": {"LD_PRELOAD": "x"}}, "environment"),
        ({"name": "one", "repository": "https://user:pw@example.org/x"}, "repository"),
        ({"name": "one", "repository": "file:///etc/passwd"}, "repository"),
        ({"name": "one", "template": "none"}, "template"),
        ({"name": "one", "colour": "blue"}, "colour"),
        ({"name": "one", "owner": "eve"}, "owner"),
        ({"name": "one", "idle": {"after_s": -1}}, "idle.after_s"),
    ],
)
async def test_bad_input_names_the_field_and_what_is_allowed(it: Api, body: dict[str, object], field: str) -> None:
    """No value is guessed at: the answer says which field is wrong, in words that name no library."""
    response = await it.client("bob").post("/api/v1/workspaces", json=body)
    problem = response.json()
    assert response.status_code == 422, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == "invalid_input"
    assert problem["field"] == field
    assert "pydantic" not in response.text
    assert "Value error" not in response.text


async def test_a_stopped_workspace_has_its_history_as_pages(it: Api) -> None:
    """Events come oldest first, and the cursor goes on where the page ended."""
    made = await it.workspace("bob")
    for number in range(5):
        await it.stage.events.append(made.id, "note", f"line {number}")
    client, path = it.client("bob"), f"/api/v1/workspaces/{made.id}/events"
    first = (await client.get(path, params={"limit": 3})).json()
    assert [event["text"] for event in first["items"]] == ["line 0", "line 1", "line 2"]
    second = (await client.get(path, params={"limit": 3, "cursor": first["cursor"]})).json()
    assert [event["text"] for event in second["items"]] == ["line 3", "line 4"]
    assert second["cursor"] is None


async def test_the_history_of_all_is_a_page_too(it: Api) -> None:
    """Page by page everybody reads the events of their own workspaces, an administrator those of all, each once."""
    events = it.stage.events
    for owner in ("bob", "eve"):
        made = await it.workspace(owner)
        for number in range(60):
            await events.append(made.id, "note", f"{owner} {number}")
    for who, own in (("bob", {"bob"}), ("ada", {"bob", "eve"})):
        client, cursor, texts = it.client(who), None, list[str]()
        while True:
            query = {"limit": 25} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/v1/events", params=query)).json()
            texts += [item["text"] for item in page["items"]]
            if (cursor := page["cursor"]) is None:
                break
        assert sorted(texts) == sorted(f"{owner} {number}" for owner in own for number in range(60))
    found = (await it.client("bob").get("/api/v1/events", params={"after": 2**62})).json()
    assert found == {"items": [], "cursor": None}


class SlowCount:
    """Counts workspaces as a busy database does: what it says may be past when it is heard."""

    def __init__(self, owned: Owned) -> None:
        self._owned = owned

    async def count(self, owner: str) -> int:
        found = await self._owned.count(owner)
        await asyncio.sleep(0.05)
        return found


async def test_nobody_is_removed_while_a_workspace_is_made(it: Api) -> None:
    """Of removing a person and making a workspace for them at once, one is refused: no workspace is without owner."""
    it.services.accounts._workspaces = SlowCount(Owned(it.stage.store))
    ada = it.client("ada")
    async with asyncio.TaskGroup() as group:
        removing = group.create_task(ada.delete("/api/v1/users/bob"))
        await asyncio.sleep(0.01)
        made = await ada.post("/api/v1/workspaces", json={"name": "last", "template": "light", "owner": "bob"})
    assert removing.result().status_code == 204
    assert (made.status_code, made.json()["detail"]) == (422, "owner: there is no user bob")


async def test_a_workspace_is_for_somebody_who_exists(it: Api) -> None:
    """An administrator makes none for a name that nobody has; a member learns nothing of who exists."""
    body = {"name": "one", "template": "light", "owner": "nobody"}
    refused = await it.client("ada").post("/api/v1/workspaces", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, "owner")
    for owner in ("nobody", "eve"):
        refused = await it.client("bob").post("/api/v1/workspaces", json=body | {"owner": owner})
        assert refused.json()["detail"] == "owner: only an administrator creates workspaces of others"


async def test_workspaces_of_earlier_fall_to_nobody(it: Api) -> None:
    """A name whose workspaces are still there is not given to somebody else."""
    left = await it.workspace("carol")
    refused = await it.client("ada").post("/api/v1/users", json={"name": "carol"})
    assert (refused.status_code, refused.json()["field"]) == (409, "name")
    await it.stage.store.remove(left.id)
    assert (await it.client("ada").post("/api/v1/users", json={"name": "carol"})).status_code == 201
