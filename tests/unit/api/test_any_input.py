"""Every path of the description, with values that fit it, nearly fit it, and do not at all: never a 500."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mooring.api.http.app import describe
from support.api import GATEWAY_TOKEN, Api

CALLS = 40
"""A path and seed."""
NASTY: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    float("nan"),
    float("inf"),
    1e308,
    "",
    " ",
    "a" * 9000,
    "\x00",
    "\ud800",
    "\u202e",
    "..",
    "../../etc",
    "%2f",
    "a\r\nb: c",
    "\uff11\uff12",
    "9" * 400,
    "' OR 1=1 --",
    "$(id)`{{7*7}}`",
    [],
    {},
    [[]],
    {"": ""},
)
NASTY_TEXTS = [text for text in NASTY if isinstance(text, str)]
# An answer without an end, whose first message is what these tests would wait for.
ENDLESS = ("/logs", "/gateway/sections")


@dataclass
class Call:
    """A request that the description allows, or nearly."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None


@pytest.mark.parametrize("seed", range(8))
async def test_no_input_is_an_error_of_the_server(it: Api, seed: int) -> None:
    """Whatever stands in path, query, headers and body, the answer is a result or says what is wrong."""
    workspace = await it.workspace("bob")
    known = (workspace.id, workspace.name, "bob", "ada", "light", "team")
    async with it.client() as client:
        rng = random.Random(seed)  # noqa: S311 - a failure is repeated by its seed
        for call in _calls(describe(it.app), rng, known, it.tokens["ada"]):
            answer = await client.request(call.method, call.path, headers=call.headers, content=call.body)
            assert answer.status_code < 500, (call, answer.text)
            if answer.is_error:
                assert answer.json()["detail"], call


def _calls(schema: dict[str, Any], rng: random.Random, known: tuple[str, ...], admin: str) -> Iterator[Call]:
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            if path.endswith(ENDLESS):
                continue
            for _ in range(CALLS if operation.get("requestBody") else CALLS // 4):
                yield _call((method, path), operation, _Maker(schema, rng, known), admin)


def _call(where: tuple[str, str], operation: dict[str, Any], make: "_Maker", admin: str) -> Call:
    method, path = where
    headers = {"Authorization": f"Bearer {GATEWAY_TOKEN if '/gateway/' in path else admin}"}
    query: dict[str, str] = {}
    for parameter in operation.get("parameters", ()):
        text = make.text(parameter["schema"])
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(text, safe="", errors="replace"))
        elif parameter["in"] == "query" and make.rng.random() < 0.7:
            query[parameter["name"]] = text
        elif parameter["in"] == "header" and make.rng.random() < 0.3:
            headers[parameter["name"]] = quote(text, errors="replace", safe=' "')
    body = None
    if content := operation.get("requestBody", {}).get("content"):
        body = make.body(content["application/json"]["schema"])
        headers["Content-Type"] = "application/json"
    return Call(method.upper(), path + "?" + urlencode(query, errors="replace"), headers, body)


class _Maker:
    """Makes values for schemas: mostly good ones, since only these come past the first check."""

    def __init__(self, schema: dict[str, Any], rng: random.Random, known: tuple[str, ...]) -> None:
        self._schemas = schema["components"]["schemas"]
        self.rng = rng
        self._known = known

    def body(self, schema: dict[str, Any]) -> bytes:
        odd = self.rng.random()
        if odd < 0.03:
            return b"[" * 100_000
        if odd < 0.06:
            return b'{"name": "\xff"}'
        text = json.dumps(self.value(schema))
        return text[: self.rng.randrange(len(text))].encode() if odd < 0.1 else text.encode()

    def text(self, schema: dict[str, Any]) -> str:
        value = self.value(schema)
        if isinstance(value, int):
            return str(value) if abs(value) < 2**64 else "9" * 400
        return value if isinstance(value, str) else str(value)

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:  # noqa: ANN401 - any JSON
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        if self.rng.random() < 0.02 or depth > 6:
            return self.rng.choice(NASTY)
        if choices := schema.get("anyOf", schema.get("oneOf")):
            return self.value(self.rng.choice(choices), depth + 1)
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        make = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": self._boolean,
        }.get(schema.get("type", ""))
        return make(schema, depth) if make else None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        made = {
            name: self.value(item, depth + 1)
            for name, item in schema.get("properties", {}).items()
            if name in required or self.rng.random() < 0.5
        }
        if isinstance(more := schema.get("additionalProperties"), dict):
            made |= {self._string({}, depth): self.value(more, depth + 1) for _ in range(self.rng.randrange(3))}
        return made

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        if "prefixItems" in schema:
            return [self.value(item, depth + 1) for item in schema["prefixItems"]]
        return [self.value(schema.get("items", {}), depth + 1) for _ in range(self.rng.randrange(3))]

    def _string(self, schema: dict[str, Any], _depth: int) -> str:
        if self.rng.random() < 0.2:
            return self.rng.choice(NASTY_TEXTS)
        good = (*self._known, "a", "/", "/a/b", "localhost:1", "127.0.0.1:{port}", "a.example.org", "512Mi", "GET")
        return str(schema.get("const") or self.rng.choice(good))

    def _integer(self, schema: dict[str, Any], _depth: int) -> int:
        return self.rng.randint(int(schema.get("minimum", 0)), min(int(schema.get("maximum", 10_000)), 2**62))

    def _number(self, schema: dict[str, Any], _depth: int) -> float:
        return self.rng.uniform(schema.get("minimum", 0), schema.get("maximum", 100))

    def _boolean(self, _schema: dict[str, Any], _depth: int) -> bool:
        return self.rng.random() < 0.5
