"""The routes of a workspace, and the section that they are published in."""

from dataclasses import replace

from mooring.model.names import Hosts
from mooring.model.routes import Backend, PathMatch, Route, RouteState
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.routes.table import RouteTable
from mooring.workspaces.ports import Observation
from mooring.workspaces.routes import routes_of
from mooring.workspaces.section import SOURCE, Section

HOSTS = Hosts("localhost")
TEMPLATE = Template(name="light", editor=Editor(command=("x",)))
ID = "0123456789"
RUNNING = Workspace(
    id=ID,
    owner="ada",
    name="one",
    spec=Spec(template="light"),
    desired=Desired.running,
    phase=Phase.running,
    generation=2,
)
SEEN = Observation(
    ID, 2, Phase.starting, editor=Backend(unix=f"/run/w/{ID}/editor.sock"), ports=Backend(listener_of=ID)
)


def routes(workspace: Workspace = RUNNING, seen: Observation | None = SEEN) -> dict[str, Route]:
    """The routes by the last part of their names."""
    found = routes_of(workspace, TEMPLATE, seen, HOSTS)
    assert all(route.name.startswith(f"workspace/{workspace.id}/") for route in found)
    return {route.name.rpartition("/")[2]: route for route in found}


def test_four_routes_of_one_workspace() -> None:
    """Editor and ports have hosts of their own and a path form, for the owner alone, with the workspace's identity."""
    made = routes()
    assert {what: (route.host, route.path) for what, route in made.items()} == {
        "editor": ("one--ada.localhost", "/"),
        "path": ("ws.localhost", f"/ws/{ID}/"),
        "port": ("p{port}--one--ada.localhost", "/"),
        "path-port": ("ws.localhost", f"/ws/{ID}/ports/{{port}}"),
    }
    for what, route in made.items():
        assert route.state is RouteState.serving
        assert (route.access.kind, route.access.subjects) == ("subjects", ("ada",))
        assert [backend.identity for backend in route.backends] == [ID]
        assert route.workspace == ID
        assert route.filters.strip_prefix is what.startswith("path")


def test_the_state_follows_the_phase() -> None:
    """Starting ones have their backend already, for the probe; what does not run has none."""
    states = {
        Phase.pending: RouteState.starting,
        Phase.starting: RouteState.starting,
        Phase.running: RouteState.serving,
        Phase.stopping: RouteState.stopped,
        Phase.stopped: RouteState.stopped,
        Phase.failed: RouteState.stopped,
    }
    for phase, state in states.items():
        for route in routes(replace(RUNNING, phase=phase)).values():
            assert route.state is state
            assert bool(route.backends) is (state is not RouteState.stopped)


def test_a_stop_that_was_asked_for_shows_at_once() -> None:
    """Before anything is stopped nobody is let in any more."""
    assert {route.state for route in routes(replace(RUNNING, desired=Desired.stopped)).values()} == {RouteState.stopped}
    assert routes(replace(RUNNING, desired=Desired.deleted)) == {}


def test_an_address_of_an_earlier_start_is_not_used() -> None:
    """It may be somebody else's by now."""
    for seen in (None, replace(SEEN, generation=1)):
        for route in routes(RUNNING, seen).values():
            assert (route.state, route.backends) == (RouteState.starting, ())


def test_an_editor_that_wants_its_prefix_keeps_it() -> None:
    """Nothing is taken off, and its own host leads to the prefix."""
    mounted = TEMPLATE.model_copy(update={"editor": Editor(command=("x",), path_prefix=True)})
    made = {route.name.rpartition("/")[2]: route for route in routes_of(RUNNING, mounted, SEEN, HOSTS)}
    assert made["path"].filters.strip_prefix is False
    assert made["editor"].path == f"/ws/{ID}/"
    assert made["root"].path_match is PathMatch.exact
    assert made["root"].filters.redirect is not None
    assert made["root"].filters.redirect.path == f"/ws/{ID}/"


def test_two_workspaces_share_no_host_and_no_path() -> None:
    """No route of one matches what another's matches."""
    other = replace(RUNNING, id="abcdefghij", name="two")
    one = {(route.host, route.path) for route in routes().values()}
    two = {(route.host, route.path) for route in routes(other, None).values()}
    assert not one & two


def served(table: RouteTable) -> set[str]:
    """The names of the routes served."""
    return {key.name for key in table.routes()}


def test_a_section_appears_whole() -> None:
    """Nothing is published before every expected workspace is there; then every change is."""
    table = RouteTable()
    section = Section(table)
    section.put("a" * 10, routes_of(replace(RUNNING, id="a" * 10, name="aa"), TEMPLATE, None, HOSTS))
    section.expect(["a" * 10, "b" * 10])
    assert SOURCE not in table.sections()
    section.put("b" * 10, routes_of(replace(RUNNING, id="b" * 10, name="bb"), TEMPLATE, None, HOSTS))
    assert len(served(table)) == 8
    revision = table.revision
    section.put("b" * 10, routes_of(replace(RUNNING, id="b" * 10, name="bb"), TEMPLATE, None, HOSTS))
    assert table.revision == revision
    section.drop("b" * 10)
    assert len(served(table)) == 4


def test_an_empty_section_is_published_too() -> None:
    """A server without workspaces says so, and a section can be opened before it is whole."""
    table = RouteTable()
    Section(table).expect([])
    assert SOURCE in table.sections()
    table = RouteTable()
    section = Section(table)
    section.expect(["a" * 10])
    section.open()
    assert SOURCE in table.sections()
    section.put(ID, routes_of(RUNNING, TEMPLATE, SEEN, HOSTS))
    assert len(served(table)) == 4
