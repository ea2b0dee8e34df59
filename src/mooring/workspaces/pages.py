"""Every workspace of a store, however many there are: stores give pages."""

from collections.abc import AsyncIterator

from mooring.model.workspace import Workspace
from mooring.workspaces.ports import WorkspaceStore

_PAGE = 500


async def every(store: WorkspaceStore, owner: str | None = None) -> AsyncIterator[Workspace]:
    """Those of `owner`, of everybody when None, in the order of their ids. Raises `Unavailable`."""
    after = None
    while True:
        page = await store.page(owner=owner, after=after, limit=_PAGE)
        for workspace in page.items:
            yield workspace
        if page.cursor is None:
            return
        after = page.cursor


class Owned:
    """What accounts ask of workspaces."""

    def __init__(self, store: WorkspaceStore) -> None:
        self._store = store

    async def count(self, owner: str) -> int:
        """How many workspaces of the owner still exist. Raises `Unavailable`."""
        return len([workspace async for workspace in every(self._store, owner)])
