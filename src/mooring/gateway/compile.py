"""From routes to what nginx's shared dictionary holds: one text a bucket. Pure.

A bucket is keyed `<listener> <host>` (the host's own entry) or `<listener> <host> /<segment>[/<segment>]`, and holds
the routes of one host whose paths begin with these segments, the one to try first in front. The host's own entry also
says how deep its buckets go. Every default is left out: Lua supplies it, and a worker's memory is spared.
"""

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from mooring.model.routes import (
    PORT,
    Access,
    Backend,
    Balancing,
    Filters,
    HeaderFilter,
    Match,
    PathMatch,
    Route,
    RouteState,
    Timeouts,
)
from mooring.routes.ports import RouteKey

DEEPEST = 2
_USUAL_TIMEOUTS = Timeouts()
_SINGLE = {"id", "path", "backends", "access", "subjects", "workspace"}


class Place(NamedTuple):
    """Where a route lives: the key of its bucket, that of its host's own entry, how deep it is below that.

    A route whose path has no segment lives in the host's own entry.
    """

    bucket: str
    host: str
    depth: int


def place(route: Route) -> Place:
    """The route's bucket is named by the leading segments of its path: at most two, none of them a port pattern."""
    host = f"{route.listener} {route.host}"
    parts = [part for part in route.path.split("/") if part]
    leading = [part for part in parts[:DEEPEST] if part != PORT]
    return Place(f"{host} /{'/'.join(leading)}" if leading else host, host, len(leading))


def precedence(key: RouteKey, route: Route) -> tuple[Any, ...]:
    """Sorts the routes of a bucket: longest path, exact before prefix, most conditions, then order and name."""
    depth = len([part for part in route.path.split("/") if part])
    exact = route.path_match is PathMatch.exact
    return (-depth, not exact, -len(route.path), -len(route.matches), route.order, key.source, key.name)


def route_id(key: RouteKey) -> str:
    """How Lua and the metrics name a route."""
    return f"{key.source}/{key.name}"


def compiled(key: RouteKey, route: Route) -> dict[str, Any]:
    """The route as Lua reads it, without defaults."""
    return {
        "id": route_id(key),
        **_path(route),
        **_conditions(route.matches),
        **_access(route.access),
        **_backends(route),
        **_filters(route.filters),
        **_timeouts(route.timeouts),
        **({"state": route.state.value} if route.state is not RouteState.serving else {}),
        **({"workspace": route.workspace} if route.workspace else {}),
        **({"affinity": route.affinity} if route.affinity != "none" else {}),
    }


def encode(depth: int | None, routes: list[dict[str, Any]]) -> str:
    """The text of a bucket; `depth` is given for a host's own entry alone."""
    if len(routes) == 1 and not depth and (text := _single(routes[0])):
        return text
    body: dict[str, Any] = {"routes": routes}
    if depth:
        body["depth"] = depth
    return orjson.dumps(body).decode()


def _single(route: dict[str, Any]) -> str | None:
    """The text of a route that asks for nothing but one backend and who may enter, None for any other."""
    backends, access, subjects = route.get("backends", ()), route.get("access"), route.get("subjects", ())
    if set(route) - _SINGLE or len(backends) != 1 or len(subjects) != (access == "subjects"):
        return None
    backend = backends[0]
    if not backend.keys() <= {"unix", "host", "port"} or backend.keys() == {"host"}:
        return None
    lines = (
        backend.get("unix") or backend["host"],
        str(backend.get("port", "")),
        "*" if access == "public" else "".join(subjects),
        route["id"],
        route["path"],
        route.get("workspace", ""),
    )
    return None if any("\n" in line for line in lines) else "\n".join(lines)


def _path(route: Route) -> dict[str, Any]:
    if route.path_match is PathMatch.exact:
        return {"path": route.path, "exact": True}
    path = route.path.rstrip("/")
    if path.endswith("/" + PORT):
        return {"path": path.removesuffix("/" + PORT), "port_in_path": True}
    return {"path": path}


def _conditions(matches: tuple[Match, ...]) -> dict[str, Any]:
    if not matches:
        return {}
    return {"matches": [match.model_dump(exclude_none=True) for match in matches]}


def _access(access: Access) -> dict[str, Any]:
    if access.kind == "authenticated":
        return {}
    if access.kind == "public":
        return {"access": "public"}
    return {"access": "subjects", "subjects": dict.fromkeys(access.subjects, True)}


def _backends(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if route.backends:
        found["backends"] = [_backend(backend) for backend in route.backends if backend.weight > 0]
    if route.balancing is not Balancing.round_robin:
        found["balancing"] = route.balancing.value
    return found


def _backend(backend: Backend) -> dict[str, Any]:
    found: dict[str, Any] = dict(_target(backend))
    if backend.weight != 1:
        found["weight"] = backend.weight
    if backend.protocol == "https":
        tls = backend.tls
        name = (tls and tls.server_name) or found.get("host", "localhost").strip("[]")
        found["tls"] = {"name": name, "verify": tls.verify if tls else True}
    return found


def _target(backend: Backend) -> Iterator[tuple[str, Any]]:
    if backend.unix is not None:
        yield "unix", f"unix:{backend.unix}"
    elif backend.files is not None:
        yield "files", backend.files.rstrip("/")
    elif backend.listener_of is not None:
        yield "listener_of", backend.listener_of
    elif backend.address is not None:
        host, _, port = backend.address.rpartition(":")
        yield "host", _numeric(host)
        if port != PORT:
            yield "port", int(port)


# To read an address costs as much as all else of a route, and most of them are one machine's.
@lru_cache(maxsize=1024)
def _numeric(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host
    # Without its brackets nginx takes the end of an IPv6 address for a port.
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address)


def _filters(filters: Filters) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if filters.rewrite_prefix is not None:
        found["rewrite"] = filters.rewrite_prefix.rstrip("/")
    elif filters.strip_prefix:
        found["rewrite"] = ""
    if filters.request_headers:
        found["request_headers"] = _headers(filters.request_headers)
    if filters.response_headers:
        found["response_headers"] = _headers(filters.response_headers)
    if filters.redirect:
        found["redirect"] = filters.redirect.model_dump(exclude_none=True)
    if filters.cors:
        found["cors"] = {
            **filters.cors.model_dump(mode="json", exclude={"origins"}),
            "origins": dict.fromkeys(filters.cors.origins, True),
        }
    if filters.mirror:
        found["mirror"] = {**_backend(filters.mirror.backend), "percent": filters.mirror.percent}
    return found


def _headers(change: HeaderFilter) -> dict[str, Any]:
    dumped = change.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in dumped.items() if value}


def _timeouts(timeouts: Timeouts) -> dict[str, Any]:
    if timeouts == _USUAL_TIMEOUTS:
        return {}
    return {"connect_s": timeouts.connect_s, "read_s": timeouts.read_s}
