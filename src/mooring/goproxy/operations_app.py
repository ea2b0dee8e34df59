"""The administration as a plain ASGI application, for a unix socket that only the server may open.

It asks nobody who they are: whoever reaches the socket may do everything. It is no part of `asgi.App`, so that no
path, prefix or token of a client can lead here.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from pydantic import TypeAdapter

from mooring.errors import InvalidInput, MooringError, NotFound, outcome
from mooring.goproxy.access import Subject
from mooring.goproxy.administration import Administration, Evictions, ModuleDetail, ModulePage, Overview, Pull
from mooring.goproxy.asgi import Receive, Scope
from mooring.goproxy.responses import Send, reply

OVERVIEW = TypeAdapter(Overview)
MODULES = TypeAdapter(ModulePage)
MODULE = TypeAdapter(ModuleDetail)
PULLS = TypeAdapter(tuple[Pull, ...])
EVICTIONS = TypeAdapter(Evictions)
PROBLEM = TypeAdapter(dict[str, str | None])
MOST = 500
_JSON = (b"content-type", b"application/json")

Query = dict[str, list[str]]


class OperationsApp:
    """The ASGI application: `GET /overview`, `/modules`, `/module`, `/pulls`, `POST /pin`, `/unpin`, `/evict`."""

    def __init__(self, administration: Administration) -> None:
        self._do = administration
        self._paths: dict[tuple[str, str], Callable[[Query], Awaitable[bytes]]] = {
            ("GET", "/overview"): self._overview,
            ("GET", "/modules"): self._modules,
            ("GET", "/module"): self._module,
            ("GET", "/pulls"): self._pulls,
            ("POST", "/pin"): self._pin,
            ("POST", "/unpin"): self._unpin,
            ("POST", "/evict"): self._evict,
        }

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = self._paths.get((scope["method"], scope["path"]))
            if answer is None:
                raise NotFound("the administration has no such path")
            data = await answer(_query(scope["query_string"]))
        except MooringError as error:
            data = PROBLEM.dump_json({"code": error.code, "detail": error.detail, "field": error.field})
            await reply(send, outcome(error).http, [_JSON], data)
        else:
            await reply(send, 200, [_JSON], data)

    async def _overview(self, query: Query) -> bytes:
        return OVERVIEW.dump_json(await self._do.overview(_viewer(query)))

    async def _modules(self, query: Query) -> bytes:
        viewer, text, after = _viewer(query), _word(query, "text"), _word(query, "after")
        return MODULES.dump_json(await self._do.modules(viewer, text, after, _limit(query)))

    async def _module(self, query: Query) -> bytes:
        viewer, module, after = _viewer(query), _word(query, "module"), _word(query, "after")
        return MODULE.dump_json(await self._do.module(viewer, module, after, _limit(query)))

    async def _pulls(self, query: Query) -> bytes:
        return PULLS.dump_json(await self._do.pulls(_word(query, "module")))

    async def _pin(self, query: Query) -> bytes:
        await self._do.pin(_word(query, "module"), _word(query, "version"))
        return b"{}"

    async def _unpin(self, query: Query) -> bytes:
        await self._do.unpin(_word(query, "module"), _word(query, "version"))
        return b"{}"

    async def _evict(self, query: Query) -> bytes:
        # Whoever leaves the word out removes nothing.
        dry_run = _word(query, "dry_run") != "no"
        module, version = _word(query, "module"), _word(query, "version")
        return EVICTIONS.dump_json(await self._do.evict(module, version, dry_run=dry_run))


def _query(raw: bytes) -> Query:
    found: Query = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return found


def _word(query: Query, name: str) -> str:
    return query.get(name, [""])[-1]


def _viewer(query: Query) -> Subject:
    return Subject(_word(query, "viewer"), tuple(query.get("private", [])))


def _limit(query: Query) -> int:
    text = _word(query, "limit")
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise InvalidInput(f"limit must be a number from 1 to {MOST}", field="limit")
    return int(text)
