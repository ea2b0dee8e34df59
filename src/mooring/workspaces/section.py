"""The section `workspaces` of the route table: holds back until it is whole, then publishes what changed."""

from collections.abc import Iterable

from mooring.model.routes import Route
from mooring.routes.ports import SectionChange
from mooring.routes.table import RouteTable

SOURCE = "workspaces"
RANK = 10


class Section:
    """The routes of all workspaces.

    After a restart of the server the gateways still serve the last table; a section that grew from nothing would take
    running workspaces away from them until each has been looked at. So nothing is published before every expected
    workspace is there, or `open` was called.
    """

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._routes: dict[str, dict[str, Route]] = {}
        self._expected: set[str] | None = None
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether the section has been published."""
        return self._is_open

    def expect(self, workspace_ids: Iterable[str]) -> None:
        """The workspaces without which the section is not whole."""
        self._expected = set(workspace_ids) - self._routes.keys()
        self._open_when_whole()

    def put(self, workspace_id: str, routes: tuple[Route, ...]) -> None:
        """These are all the routes of that workspace."""
        before = self._routes.get(workspace_id, {})
        after = {route.name: route for route in routes}
        self._routes[workspace_id] = after
        if self._is_open:
            upserts = tuple(route for name, route in after.items() if before.get(name) != route)
            deletes = tuple(name for name in before if name not in after)
            if upserts or deletes:
                self._table.apply(SectionChange(SOURCE, upserts=upserts, deletes=deletes), RANK)
        elif self._expected is not None:
            self._expected.discard(workspace_id)
            self._open_when_whole()

    def drop(self, workspace_id: str) -> None:
        """It has none any more, and is forgotten."""
        self.put(workspace_id, ())
        del self._routes[workspace_id]

    def open(self) -> None:
        """Publish what there is, whole or not."""
        if not self._is_open:
            self._is_open = True
            upserts = tuple(route for routes in self._routes.values() for route in routes.values())
            self._table.apply(SectionChange(SOURCE, upserts=upserts, complete=True), RANK)

    def _open_when_whole(self) -> None:
        if not self._expected and self._expected is not None:
            self.open()
