"""The API's reference names every path that there is, and none that there is not."""

import re
from pathlib import Path

from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts

from mooring.api.http.app import describe
from mooring.errors import OUTCOMES
from support.api import api

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/api.md").read_text()
_PATH = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)(?:\?[^`]*)?`")


async def test_the_reference_has_each_path() -> None:
    """Methods and paths of the application and of the reference are the same."""
    async with api() as it:
        contexts = list(iter_route_contexts(it.app.routes))
    real = {("GET", c.path) for c in contexts if isinstance(c.route, APIWebSocketRoute)}
    real |= {(m, c.path) for c in contexts if isinstance(c.route, APIRoute) for m in c.route.methods or ()}
    assert set(_PATH.findall(REFERENCE)) == real


async def test_the_reference_names_documents_that_exist() -> None:
    """What a path takes and gives is a document of the description."""
    async with api() as it:
        known = set(describe(it.app)["components"]["schemas"])
    rows = [row.split("|")[2] for row in REFERENCE.splitlines() if row.startswith("| `") and "/api/v1" in row]
    named = {name for row in rows for name in re.findall(r"`([A-Z][A-Za-z]+)`", row)}
    assert len(named) > 15
    assert named <= known, named - known


def test_the_reference_has_each_status() -> None:
    """Every status that an error can have is explained with its code."""
    for kind, row in OUTCOMES.items():
        assert re.search(rf"^\| {row.http} \|.*`{kind.code}`", REFERENCE, re.MULTILINE), kind


# Where the keys of a document are, if not in the table of the reference.
ELSEWHERE = {
    "routes.md": {"Route", "Backend", "BackendTls", "Filters", "HeaderFilter", "Redirect", "Cors", "Mirror", "Match"}
    | {"Access", "Timeouts"},
    "templates.md": {"Template", "Editor"},
    "../architecture.md": {"GatewayReport", "GatewayTable", "NginxReport", "OwnSection", "OwnConflict"}
    | {"SectionReport"},
}
# Parts of others, whose keys stand in the row of the whole, and what every page and every error has.
PARTS = {"RouteName": "RouteEntry", "Watch": "Health", "EvictedVersion": "Eviction", "RefusedVersion": "Eviction"}
EVERYWHERE = re.compile(r"Page_|Problem$")


def _keys_explained(name: str) -> set[str]:
    """The words that the row of a document holds, or the page that has it."""
    for page, names in ELSEWHERE.items():
        if name in names:
            text = (ROOT / "docs/reference" / page).read_text()
            return set(re.findall(r"[a-z][a-z0-9_]*", text))
    rows = (row for row in REFERENCE.splitlines() if row.startswith("| `"))
    found = [row for row in rows if PARTS.get(name, name) in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])]
    return set(re.findall(r"`([a-z][a-z0-9_]*)`", "".join(found)))


async def test_the_reference_has_each_key_of_each_document() -> None:
    """A key that an answer or a request may have stands beside its document's name."""
    async with api() as it:
        schemas = describe(it.app)["components"]["schemas"]
    documents = {name: set(s["properties"]) for name, s in schemas.items() if "properties" in s}
    missing = {
        name: keys - explained
        for name, keys in documents.items()
        if EVERYWHERE.match(name) is None and keys - (explained := _keys_explained(name))
    }
    assert missing == {}
