"""The administration of a module proxy that runs in another process, asked over its administration socket."""

from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx2
from pydantic import TypeAdapter, ValidationError

from mooring.errors import OUTCOMES, Misconfigured, MooringError, Unavailable
from mooring.goproxy import operations_app as wire
from mooring.goproxy.access import Subject
from mooring.goproxy.administration import Evictions, ModuleDetail, ModulePage, Overview, Pull

T = TypeVar("T")
Query = list[tuple[str, str | int | float | bool | None]]

_CONNECT_S = 2.0
_ANSWER_S = 20.0
"""The first look at a store of a hundred thousand versions takes seconds."""
_EVICT_S = 120.0
"""The upstream is asked about every version that should go."""
_BY_CODE = {kind.code: kind for kind in OUTCOMES}
_BY_STATUS = {row.http: kind for kind, row in OUTCOMES.items() if kind is not Misconfigured}
_NOTHING = TypeAdapter(dict[str, str])


class RemoteOperations:
    """An `Administration`; a connection is made when something is asked. `where` tells a person what to look at.

    For `async with`, or for as long as the process lives.
    """

    def __init__(self, socket: Path, *, where: str) -> None:
        self._where = where
        self._http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=str(socket)),
            base_url="http://goproxy",
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def overview(self, viewer: Subject) -> Overview:
        return await self._get("/overview", wire.OVERVIEW, _seen_by(viewer))

    async def modules(self, viewer: Subject, text: str, after: str, limit: int) -> ModulePage:
        query = [*_seen_by(viewer), ("text", text), ("after", after), ("limit", str(limit))]
        return await self._get("/modules", wire.MODULES, query)

    async def module(self, viewer: Subject, module: str, after: str, limit: int) -> ModuleDetail:
        query = [*_seen_by(viewer), ("module", module), ("after", after), ("limit", str(limit))]
        return await self._get("/module", wire.MODULE, query)

    async def pulls(self, module: str) -> tuple[Pull, ...]:
        return await self._get("/pulls", wire.PULLS, [("module", module)])

    async def pin(self, module: str, version: str) -> None:
        _ = await self._ask("POST", "/pin", _NOTHING, [("module", module), ("version", version)])

    async def unpin(self, module: str, version: str) -> None:
        _ = await self._ask("POST", "/unpin", _NOTHING, [("module", module), ("version", version)])

    async def evict(self, module: str, version: str, *, dry_run: bool) -> Evictions:
        query: Query = [("module", module), ("version", version), ("dry_run", "yes" if dry_run else "no")]
        return await self._ask("POST", "/evict", wire.EVICTIONS, query, timeout_s=_EVICT_S)

    async def _get(self, path: str, answer: TypeAdapter[T], query: Query) -> T:
        return await self._ask("GET", path, answer, query)

    async def _ask(
        self,
        method: str,
        path: str,
        answer: TypeAdapter[T],
        query: Query,
        *,
        timeout_s: float = _ANSWER_S,
    ) -> T:
        timeout = httpx2.Timeout(timeout_s, connect=_CONNECT_S)
        try:
            response = await self._http.request(method, path, params=query, timeout=timeout)
        except httpx2.TransportError as error:
            raise Unavailable(f"the module proxy does not answer: {self._where}") from error
        try:
            if response.is_success:
                return answer.validate_json(response.content)
        except ValidationError as error:
            raise Unavailable(f"the module proxy answers something strange: {self._where}") from error
        raise _problem(response)


def _problem(response: httpx2.Response) -> MooringError:
    try:
        problem = wire.PROBLEM.validate_json(response.content)
    except ValidationError:
        # The role itself refuses in plain text, while it has no settings that work.
        problem = {"detail": response.text.strip()}
    kind = _BY_CODE.get(problem.get("code") or "") or _BY_STATUS.get(response.status_code, MooringError)
    return kind(problem.get("detail") or "the module proxy failed", field=problem.get("field"))


def _seen_by(viewer: Subject) -> Query:
    return [("viewer", viewer.name), *(("private", pattern) for pattern in viewer.private)]
