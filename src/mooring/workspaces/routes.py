"""The routes of a workspace: pure, from what is wanted and what is observed.

Four of each: its editor and its ports, on hosts of their own and below `/ws/<id>/` where no wildcard name works. All
of them exist in every phase, so that a stopped workspace has a page that says so.
"""

from mooring.model.names import Hosts
from mooring.model.routes import (
    PORT,
    Access,
    Backend,
    Filters,
    PathMatch,
    Redirect,
    Route,
    RouteState,
)
from mooring.model.template import Template
from mooring.model.workspace import Desired, Phase, Workspace
from mooring.workspaces.launch import prefix
from mooring.workspaces.ports import Observation

_STATES = {
    Phase.pending: RouteState.starting,
    Phase.starting: RouteState.starting,
    Phase.running: RouteState.serving,
}


def routes_of(
    workspace: Workspace, template: Template, observation: Observation | None, hosts: Hosts
) -> tuple[Route, ...]:
    """Every route of `workspace`; none of one that is being deleted.

    A starting workspace's routes have its backend already: the readiness probe goes through them. An observation of
    another start gives no backend, since its address may be somebody else's by now.
    """
    if workspace.desired is Desired.deleted:
        return ()
    current = observation if observation and observation.generation == workspace.generation else None
    state = _STATES.get(workspace.phase, RouteState.stopped)
    if workspace.desired is not Desired.running:
        state = RouteState.stopped
    maker = _Maker(workspace, hosts, state, current)
    return (*maker.editor(mounted=template.editor.path_prefix), *maker.ports())


class _Maker:
    """What the routes of one workspace have in common."""

    def __init__(self, workspace: Workspace, hosts: Hosts, state: RouteState, seen: Observation | None) -> None:
        self._workspace = workspace
        self._hosts = hosts
        self._state = state
        self._editor = seen.editor if seen else None
        self._ports = seen.ports if seen else None

    def editor(self, *, mounted: bool) -> tuple[Route, ...]:
        """The editor's; `mounted` when it wants to see the prefix, on its own host too."""
        base = prefix(self._workspace)
        own = self._hosts.workspace(self._workspace.name, self._workspace.owner)
        below = self._route(
            "path", self._hosts.paths, base, self._editor, Filters() if mounted else Filters(strip_prefix=True)
        )
        if not mounted:
            return (self._route("editor", own, "/", self._editor, Filters()), below)
        to_prefix = Filters(redirect=Redirect(path=base))
        root = self._route("root", own, "/", None, to_prefix)
        return (
            root.model_copy(update={"path_match": PathMatch.exact}),
            self._route("editor", own, base, self._editor, Filters()),
            below,
        )

    def ports(self) -> tuple[Route, ...]:
        """Those of its ports: what listens there knows nothing of prefixes, so they are taken off."""
        own = self._hosts.port(self._workspace.name, self._workspace.owner)
        base = f"{prefix(self._workspace)}ports/{PORT}"
        return (
            self._route("port", own, "/", self._ports, Filters()),
            self._route("path-port", self._hosts.paths, base, self._ports, Filters(strip_prefix=True)),
        )

    def _route(self, what: str, host: str, path: str, backend: Backend | None, filters: Filters) -> Route:
        backends = self._proven(backend)
        state = self._state
        if state is RouteState.serving and not backends and filters.redirect is None:
            state = RouteState.starting
        return Route(
            name=f"workspace/{self._workspace.id}/{what}",
            host=host,
            path=path,
            state=state,
            backends=backends,
            filters=filters,
            access=Access(kind="subjects", subjects=(self._workspace.owner,)),
            workspace=self._workspace.id,
        )

    def _proven(self, backend: Backend | None) -> tuple[Backend, ...]:
        """The backend with the workspace's identity; none in a stopped workspace."""
        if backend is None or self._state is RouteState.stopped:
            return ()
        return (backend.model_copy(update={"identity": self._workspace.id}),)
