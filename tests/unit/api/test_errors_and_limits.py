"""Errors look alike everywhere, bodies have an end, and the description of the API is complete."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from structlog.testing import capture_logs

from mooring.accounts.memory import MemoryAccounts
from mooring.api.http.documents import DocumentRoute, crowded
from mooring.api.http.limits import MOST
from mooring.errors import Unavailable
from mooring.model.routes import Document
from mooring.model.template import Template
from support.api import Api


async def test_what_http_itself_refuses_is_a_problem_too(it: Api) -> None:
    """Unknown paths, other methods and other types have a code like everything else."""
    client = it.client("ada")
    for method, path, status, code in (
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/v1/workspaces/", 404, "not_found"),
        ("PUT", "/api/v1/me", 405, "method_not_allowed"),
        ("GET", "/.mooring/nothing", 404, "not_found"),
    ):
        response = await client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (status, code), path
        assert response.headers["content-type"] == "application/problem+json"
    assert (await client.put("/api/v1/me")).headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("content", "type_", "text"),
    [
        (b"{", "application/json", "must be JSON"),
        (b"", "application/json", "must be a JSON object"),
        (b"[]", "application/json", "must be a JSON object"),
        (b'{"name": "one"}', "application/x-www-form-urlencoded", "sent as Content-Type: application/json"),
        (b"\xff\xfe", "application/json", "must be JSON"),
        (b"[" * 100_000, "application/json", ""),
    ],
)
async def test_a_body_that_is_no_document_is_refused(it: Api, content: bytes, type_: str, text: str) -> None:
    """Broken, missing, foreign and absurdly nested bodies are the caller's mistake, said in a sentence."""
    response = await it.client("ada").post("/api/v1/workspaces", content=content, headers={"Content-Type": type_})
    assert response.status_code in (400, 422), response.text
    assert text in response.json()["detail"]
    assert not re.search("pydantic|extract", response.text)


@pytest.mark.parametrize("host", ["[", "x/api/v1/gateway/", "a b", "]:x"])
async def test_a_host_that_is_none_changes_no_path(it: Api, host: str) -> None:
    """What is asked for stands in the request's line alone, whatever the Host is."""
    for method, path, status in (("POST", "/api/v1/users", 401), ("GET", "/nothing", 404), ("GET", "/api/v1/me", 401)):
        response = await it.client().request(method, path, headers={"Host": host, "Accept": "text/html"})
        assert response.status_code == status, path


async def test_a_huge_body_is_refused(it: Api) -> None:
    """A body that is too large is refused whether it says how long it is or not."""
    client = it.client("ada")
    body = b'{"name": "' + b"a" * 2**21 + b'"}'

    async def pieces() -> Any:  # noqa: ANN401 - an asynchronous generator
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    for content in (body, pieces()):
        response = await client.post(
            "/api/v1/workspaces", content=content, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 413
        assert response.json()["code"] == "too_large"


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        (None, "PUT", "/api/v1/routes/sections/one", 401),
        ("bob", "PUT", "/api/v1/routes/sections/one", 403),
        ("ada", "POST", "/api/v1/gateway/report", 401),
        (None, "POST", "/api/v1/workspaces", 401),
    ],
)
async def test_a_document_is_read_for_those_who_may_send_one(
    it: Api, who: str | None, method: str, path: str, status: int
) -> None:
    """Sixteen megabytes of brackets are seconds of work: nobody does it for a stranger."""
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 16:
            read += 1
            yield b"[]," * 2**18

    headers = {"Content-Type": "application/json"}
    response = await it.client(who).request(method, path, content=pieces(), headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert read <= 1


LONG = "a" * 1000


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "text"),
    [
        ("POST", "workspaces", '{"name": "one", "limits": {"cpu": "2"}}', "limits.cpu", "must be a number"),
        ("POST", "workspaces", '{"name": "one", "limits": {"cpu": true}}', "limits.cpu", "must be a number"),
        ("POST", "workspaces", '{"name": "one", "limits": {"pids": "99"}}', "limits.pids", "must be a whole number"),
        ("POST", "workspaces", '{"name": "one", "limits": {"pids": 2.0}}', "limits.pids", "must be a whole number"),
        ("POST", "workspaces", '{"name": "one", "idle": {"after_s": true}}', "idle.after_s", "must be a whole number"),
        ("POST", "workspaces", '{"name": "one", "start": "no"}', "start", "must be true or false"),
        ("POST", "workspaces", '{"name": "one", "start": 0}', "start", "must be true or false"),
        ("POST", "workspaces", '{"name": "one", "name": "two"}', "name", "name: stands there twice"),
        ("POST", "workspaces", '{"name": "a1", "limits": {"pids": 99, "pids": null}}', "pids", "stands there twice"),
        ("POST", "workspaces", r'{"\ud800": 1, "\ud800": 2}', "?", "?: stands there twice"),
        ("POST", "workspaces", f'{{"{LONG}": 1, "{LONG}": 2}}', LONG[:100], "aaa: stands there twice"),
        ("POST", "workspaces", '{"name": "one", "limits": {"cpu": NaN}}', None, "must be JSON, which has no NaN"),
        ("POST", "users/ada/tokens", '{"expires_in_s": "3600"}', "expires_in_s", "must be a whole number"),
        ("PUT", "routes/sections/team", '{"rank": "9", "routes": []}', "rank", "must be a whole number"),
        ("PUT", "routes/sections/team", '{"routes": [], "routes": []}', "routes", "stands there twice"),
    ],
)
async def test_a_document_means_what_it_says(
    it: Api, method: str, path: str, body: str, field: str | None, text: str
) -> None:
    """Text is no number, 1 is not true, and of a key that stands there twice nobody knows which one is meant."""
    response = await it.client("ada").request(
        method, f"/api/v1/{path}", content=body, headers={"Content-Type": "application/json"}
    )
    problem = response.json()
    assert (response.status_code, problem["code"], problem.get("field")) == (422, "invalid_input", field)
    assert text in problem["detail"]


def _strict(schema: Any) -> Iterator[bool]:  # noqa: ANN401 - pydantic's, as deep as it goes
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            yield schema.get("strict", False)
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from _strict(part)


def test_every_number_of_a_document_is_strict(it: Api) -> None:
    """No document of a person, and no template, takes text for a number or a number for a flag."""
    assert it
    documents = [Template]
    for context in iter_route_contexts(it.app.router.routes):
        route = context.route
        body = route.body_field if isinstance(route, APIRoute) else None
        if body is not None and issubclass(body.field_info.annotation, Document):
            assert isinstance(route, DocumentRoute), context.path
            documents.append(body.field_info.annotation)
    assert len(documents) > 8
    for document in documents:
        found = list(_strict(document.__pydantic_core_schema__))
        assert all(found), document


CROWDED = {
    "lists": b"[" + b"[]," * 300_000 + b"[]]",
    "nested": b"[" + (b"[" * 500 + b"]" * 500 + b",") * 1000 + b"[]]",
    "deep": b"[" * 2**20,
    "keys": b'{"name": "one", "environment": {' + b",".join(b'"a%d":[]' % n for n in range(70_000)) + b"}}",
    "texts": b'["' + b'","' * 300_000 + b'"]',
    "backslashes": b'[[[[,"' + b"\\" * 400_000 + b"," * 200_000,
}


@pytest.mark.parametrize("kind", CROWDED)
def test_a_megabyte_of_brackets_is_looked_at_and_not_read(kind: str) -> None:
    """What would be hundreds of thousands of objects is refused for their number."""
    assert len(CROWDED[kind]) <= MOST
    assert crowded(CROWDED[kind]) is (kind != "backslashes")


async def test_a_crowded_document_is_refused(it: Api) -> None:
    """The answer says what is allowed; brackets inside a text are text."""
    client = it.client("bob")
    json_type = {"Content-Type": "application/json"}
    refused = await client.post("/api/v1/workspaces", content=CROWDED["lists"], headers=json_type)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert "at most 10000 values" in refused.json()["detail"]
    environment = {f"A{n}": '[{",\\' * 1500 for n in range(8)}
    body = {"name": "one", "template": "light", "environment": environment}
    made = await client.post("/api/v1/workspaces", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["environment"] == environment


async def test_many_routes_are_not_a_huge_body(it: Api) -> None:
    """A section may be larger than other documents."""
    routes = [
        {"name": f"r{n}", "host": f"h{n}.example", "backends": [{"address": "10.0.0.1:80"}]} for n in range(15_000)
    ]
    response = await it.client("ada").put("/api/v1/routes/sections/many", json={"routes": routes})
    assert response.status_code == 200
    assert response.json()["routes"] == 15_000


@pytest.mark.parametrize("cursor", ["x", "!!!", "AAAA", "c1.x", "ü", "YzEuYQBi", "a" * 513])
async def test_a_cursor_that_we_did_not_make_is_refused(it: Api, cursor: str) -> None:
    """A cursor is checked, not trusted."""
    for path in ("/api/v1/workspaces", "/api/v1/users", "/api/v1/routes"):
        response = await it.client("ada").get(path, params={"cursor": cursor})
        assert response.status_code == 422, path
        assert response.json()["field"] == "cursor"


@pytest.mark.parametrize("limit", ["0", "-1", "501", "x", "1e3"])
async def test_a_limit_has_limits(it: Api, limit: str) -> None:
    """A page has 1 to 500 items."""
    response = await it.client("ada").get("/api/v1/workspaces", params={"limit": limit})
    assert response.status_code == 422
    assert response.json()["field"] == "limit"


async def test_an_unforeseen_error_tells_nothing(it: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we did not foresee is logged; the caller gets a code and no trace."""

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(MemoryAccounts, "users", broken)
    with capture_logs() as logs:
        response = await it.client("ada").get("/api/v1/users")
    assert [(entry["path"], type(entry["exc_info"])) for entry in logs] == [("/api/v1/users", ZeroDivisionError)]
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "secret" not in response.text


async def test_a_database_that_is_away_is_said_to_be(it: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is a 503 that says when to try again, and turns the server unready."""
    client = it.client("ada")

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(MemoryAccounts, "token", away)
    monkeypatch.setattr(MemoryAccounts, "users", away)
    with capture_logs() as logs:
        response = await client.get("/api/v1/me")
        ready = await client.get("/readyz")
    assert [(entry["error"], entry["exc_info"]) for entry in logs if entry["event"] == "request failed"] == [
        ("the database does not answer", None)
    ]
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert ready.status_code == 503
    database = next(watch for watch in ready.json()["watches"] if watch["name"] == "database")
    assert not database["ok"]


async def test_the_description_has_every_path_and_every_error(it: Api) -> None:
    """OpenAPI lists each path of the API with a summary and with the problem document for what can go wrong."""
    schema = (await it.client("ada").get("/api/v1/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    known = {(path, method.upper()) for path, item in schema["paths"].items() for method in item}
    routes = {
        (context.path.replace(":path}", "}"), method)
        for context in iter_route_contexts(it.app.routes)
        if isinstance(context.route, APIRoute) and context.path.startswith("/api/v1/")
        for method in context.route.methods or ()
    } - {("/api/v1/openapi.json", "GET")}
    assert routes <= known
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            errors = {code: answer for code, answer in operation["responses"].items() if code[0] in "45"}
            assert operation["description"], (method, path)
            if path in ("/healthz", "/readyz"):
                continue
            assert "401" in errors, (method, path)
            for code, answer in errors.items():
                assert list(answer["content"]) == ["application/problem+json"], (method, path, code)
            if "requestBody" in operation:
                assert {"400", "413"} <= errors.keys(), (method, path)
            if "requestBody" in operation or any(p["in"] != "path" for p in operation.get("parameters", ())):
                assert "422" in errors, (method, path)
    assert "HTTPValidationError" not in schema["components"]["schemas"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/users/a%00b",
        "/api/v1/users/a%0ab",
        "/api/v1/users/ada/tokens/%00",
        "/api/v1/templates/%7f",
        "/api/v1/workspaces?name=%00",
        "/api/v1/workspaces?owner=a%00",
        "/open?url=%00",
        "/.mooring/ticket?ticket=%00",
    ],
)
async def test_control_characters_in_an_address_are_refused(it: Api, path: str) -> None:
    """No database is asked for a text that it cannot hold."""
    response = await it.client("ada").get(path)
    assert response.status_code == 422
    assert "control character" in response.json()["detail"]


@pytest.mark.parametrize("label", ['"\\u0000"', '"a\\nb"', '"\\ud800"', '"\\u007f"', "1", '"' + "a" * 101 + '"'])
async def test_a_label_is_one_line_of_text(it: Api, label: str) -> None:
    """Control characters, half a character and other types are no label."""
    response = await it.client("ada").post(
        "/api/v1/users/ada/tokens", content='{"label": ' + label + "}", headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert response.json()["field"] == "label"
