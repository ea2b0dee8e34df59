"""The API's reference names every path that there is, and none that there is not."""

import re
from pathlib import Path

from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts

from mooring.api.http.app import describe
from mooring.errors import OUTCOMES
from support.api import api

REFERENCE = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()
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
