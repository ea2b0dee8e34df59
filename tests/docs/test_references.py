"""The pages of the reference say what the code allows, and their examples are good ones."""

import re
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

from mooring.cli.up import up
from mooring.errors import OUTCOMES
from mooring.model.routes import Backend, Cors, Filters, Mirror, Redirect, Route, Timeouts
from mooring.model.template import Editor, Template
from mooring.model.workspace import IdleRule, Limits
from mooring.settings import Home
from mooring.workspaces.templates import parse

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
_KIND = re.compile(r'(?:\.event|event = |change, |apply, |\.tell)\((?:workspace\.id, )?"([a-z-]+)"')


def _page(name: str) -> str:
    return (REFERENCE / name).read_text()


def _rows(text: str) -> dict[str, str]:
    """The rows of a page's tables by what stands in their first cell's quotes."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {name: row for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def _code(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("model", [Template, Editor, Limits, IdleRule])
def test_each_key_of_a_template_is_explained(model: type[BaseModel]) -> None:
    """With its meaning, what is allowed and an example; tables of their own have headings."""
    page = _page("templates.md")
    rows = _rows(page)
    for key in model.model_fields:
        assert key in rows or f"`[{key}]`" in page, key
        if key in rows:
            meaning, allowed, *_, example = (cell.strip() for cell in rows[key].strip("|").split("|")[1:])
            assert meaning, key
            assert allowed, key
            assert example.startswith("`"), key


def test_the_example_of_a_template_is_one() -> None:
    """What stands on the page can be copied into a file."""
    (example,) = _code(_page("templates.md"), "toml")
    assert parse(example, "tools.toml").runtime == "docker"


@pytest.mark.parametrize("model", [Route, Backend])
def test_each_key_of_a_route_is_explained(model: type[BaseModel]) -> None:
    """A row for each key of a route and of its backends."""
    assert set(model.model_fields) <= set(_rows(_page("routes.md")))


@pytest.mark.parametrize("model", [Filters, Redirect, Cors, Mirror, Timeouts])
def test_each_inner_key_of_a_route_is_named(model: type[BaseModel]) -> None:
    """Smaller documents are named within a row."""
    assert all(f"`{key}`" in _page("routes.md") for key in model.model_fields)


@pytest.mark.parametrize("name", ["routes.md", "sources.md"])
def test_the_examples_of_routes_are_routes(name: str) -> None:
    """What stands on the page can be published."""
    examples = _code(_page(name), "yaml")
    assert examples
    for example in examples:
        for route in yaml.safe_load(example)["routes"]:
            Route.model_validate(route)


def test_each_error_is_explained() -> None:
    """Code, HTTP status and exit status are those of the table in the code."""
    rows = _rows(_page("errors.md"))
    for kind, row in OUTCOMES.items():
        cells = [cell.strip() for cell in rows[kind.code].strip("|").split("|")]
        assert cells[-2:] == [str(row.http), str(row.exit)], kind


def test_each_kind_of_event_is_explained() -> None:
    """What the code tells of workspaces is on the page, and nothing else is."""
    sources = [path.read_text() for path in (ROOT / "src/mooring/workspaces").glob("*.py")]
    told = {kind for text in sources for kind in _KIND.findall(text)}
    assert len(told) > 10
    assert set(_rows(_page("events.md"))) == told


def test_each_option_and_variable_is_explained() -> None:
    """Every option of `mooring up`, and every variable that the product reads."""
    rows = _rows(_page("settings.md"))
    app = typer.Typer()
    app.command()(up)
    options = {name for option in typer.main.get_command(app).params for name in option.opts if name.startswith("--")}
    assert options - {"--help", "--install-completion", "--show-completion"} <= set(rows)
    texts = (path.read_text() for path in (ROOT / "src/mooring").rglob("*.py"))
    read = {name for text in texts for name in re.findall(r'(?:get\(|envvar=)"([A-Z_]+)"', text) if "_" in name}
    assert read <= set(rows)


def test_each_place_below_home_is_explained() -> None:
    """A person who looks into the folder finds its name on the page."""
    home = Home(Path("/home"))
    rows = " ".join(_rows(_page("settings.md")))
    for place in (home.database, home.keys, home.admin_token, home.run, home.gateway, home.logs, home.workspaces):
        assert place.name in rows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is to a file that is there."""
    for link in _LINK.findall(page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_that_are_named_exist(page: Path) -> None:
    """A page that sends a reader to a file sends to one that is there."""
    text = page.read_text()
    for name in re.findall(r"`((?:src|tests|tools|docs|bench)/[A-Za-z0-9_./-]+)`", text):
        assert (ROOT / name).exists(), name
