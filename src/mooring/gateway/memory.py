"""The route sink without nginx: the reference that the contract suite measures the real one against."""

import hashlib

import orjson

from mooring.errors import Conflict, LimitExceeded
from mooring.gateway.ports import TelemetrySnapshot
from mooring.model.grants import Grants
from mooring.model.routes import PathMatch, Route
from mooring.routes.ports import Delta, Revision, RouteKey
from mooring.routes.wire import route_document


class MemorySink:
    """Keeps the table in a dictionary. `capacity` is how many bytes of JSON it takes in all."""

    def __init__(self, *, capacity: int = 64 * 2**20) -> None:
        self._capacity = capacity
        self._revision: Revision | None = None
        self._routes: dict[RouteKey, Route] = {}
        self._sizes: dict[RouteKey, int] = {}
        self._grants = Grants()

    async def apply(self, revision: Revision, delta: Delta) -> None:
        if not delta.complete and (self._revision is None or self._revision.epoch != revision.epoch):
            raise Conflict("a delta needs the table that it changes: send a complete one")
        routes = {} if delta.complete else dict(self._routes)
        sizes = {} if delta.complete else dict(self._sizes)
        for key in delta.deletes:
            routes.pop(key, None)
            sizes.pop(key, None)
        for key, route in delta.upserts:
            routes[key] = route
            sizes[key] = len(orjson.dumps(route_document(route)))
        if (needed := sum(sizes.values())) > self._capacity:
            raise LimitExceeded(f"the routes need {needed} bytes, {self._capacity} are there")
        self._routes, self._sizes, self._revision = routes, sizes, revision

    async def grant(self, grants: Grants) -> None:
        self._grants = grants

    async def applied(self) -> Revision | None:
        return self._revision

    async def read(self) -> TelemetrySnapshot:
        """Nothing is counted here (the port is `Telemetry`)."""
        return TelemetrySnapshot()

    def forget(self) -> None:
        """Be as a fresh nginx is: without a table."""
        self._revision, self._routes, self._sizes, self._grants = None, {}, {}, Grants()

    def routes(self) -> dict[RouteKey, Route]:
        """What is live."""
        return dict(self._routes)

    def serves(self, host: str, path: str) -> Route | None:
        """The route of a request: the most specific host first, then an exact path, then the longest prefix."""
        for pattern in _hosts(host):
            found = [r for r in self._routes.values() if r.host == pattern and _covers(r, path)]
            if found:
                return max(found, key=lambda r: (r.path_match is PathMatch.exact, len(r.path)))
        return None

    def knows(self, token: str) -> bool:
        """Whether a grant accepts this bearer token."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        return any(grant.sha256 == digest for grant in self._grants.tokens)


def _hosts(host: str) -> list[str]:
    labels = host.split(".")
    return [host, *(".".join(["*", *labels[i:]]) for i in range(1, len(labels))), "*"]


def _covers(route: Route, path: str) -> bool:
    prefix = route.path.rstrip("/")
    return path == route.path or (route.path_match is PathMatch.prefix and f"{path}/".startswith(f"{prefix}/"))
