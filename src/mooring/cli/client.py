"""The API as the command line uses it: typed documents in and out, and errors of our own tree.

Clients that wait are made of repeated short questions and of server-sent events that resume: a server that restarts
in between is no error as long as it comes back in time.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import NoReturn, Self, TypeVar
from urllib.parse import urlencode

import httpx2
from pydantic import BaseModel, ValidationError

from mooring.api.http.schemas import Event, Health, Page, Problem, Workspace
from mooring.cli.endpoint import Endpoint, find
from mooring.cli.language import _
from mooring.errors import OUTCOMES, InvalidInput, MooringError, NotFound, Unavailable
from mooring.model.names import is_id
from mooring.model.wording import said

T = TypeVar("T", bound=BaseModel)
Query = str | int | bool | None

PAGE = 500
TIMEOUT_S = 30.0
CONNECT_S = 5.0
SILENT_S = 45.0
"""The server says something every 15 s: three times that, and the connection is dead."""
AWAY_S = 60.0
AGAIN_S = 0.5
_LONGEST = 64
"""Of an owner and a name; a longer text names nobody's workspace, and the longest do not fit into a request."""
_BY_CODE = {kind.code: kind for kind in OUTCOMES}
_BY_STATUS = {row.http: kind for kind, row in reversed(OUTCOMES.items())}


def document(model: type[T], **values: object) -> T:
    """A request's document. Absent values (None) are left to the server.

    Raises:
        InvalidInput: naming the value and what is allowed, before anything is sent.
    """
    try:
        return model.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{field}: {said(first)}", field=field) from error


class Api:
    """A connection to one server, for `with`. Every call raises the errors of the server's problem documents.

    Raises:
        Unavailable: the server does not answer, or breaks off; says what to type.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> None:
        self.endpoint = endpoint
        address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        tls = endpoint.tls()
        self._http = httpx2.Client(
            base_url=f"{endpoint.scheme}://{address}:{endpoint.port}",
            headers={"Host": endpoint.netloc, "Authorization": f"Bearer {endpoint.token}"},
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            verify=tls if tls is not None else True,
            trust_env=not endpoint.direct,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def health(self) -> Health:
        """What the server says of itself, ready or not."""
        try:
            return Health.model_validate_json(self._ask(self._http.build_request("GET", "/readyz")).content)
        except httpx2.TransportError as error:
            raise self.endpoint.silent(error) from error
        except ValidationError as error:
            raise self.endpoint.unanswered("its gateway runs, the server behind it does not answer") from error

    def get(self, path: str, answer: type[T], **query: Query) -> T:
        """One document."""
        return self._answered("GET", path, answer, query=query)

    def pages(self, path: str, item: type[T], **query: Query) -> Iterator[T]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self._answered("GET", path, Page[item], query={**query, "limit": PAGE, "cursor": cursor})  # type: ignore[valid-type]
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def post(self, path: str, answer: type[T], body: BaseModel | None = None) -> T:
        """What the server made of `body`."""
        return self._answered("POST", path, answer, body=body)

    def put(self, path: str, answer: type[T], body: BaseModel) -> T:
        """What replaced what was there."""
        return self._answered("PUT", path, answer, body=body)

    def patch(self, path: str, answer: type[T], body: BaseModel, *, revision: int | None = None) -> T:
        """The changed document; with `revision`, only while it is still that one."""
        return self._answered("PATCH", path, answer, body=body, revision=revision)

    def set(self, path: str, **query: Query) -> None:
        """It is so afterwards; there is no answer."""
        self._send("PUT", path, query=query)

    def delete(self, path: str, **query: Query) -> None:
        """Nothing is there afterwards, or soon."""
        self._send("DELETE", path, query=query)

    def follow(self, path: str, query: Mapping[str, Query], *, resume: str) -> Iterator[httpx2.ServerSentEvent]:
        """Server-sent events until what they are about is gone: a broken connection is made again, behind the last id.

        `resume` is the query's name of that id. An event called `end` is the end.

        Raises:
            NotFound: the workspace is removed, which ends its stream, and is not there when asked about again.
            Unavailable: the server has been away for a minute, or has ended every answer before it said anything.
        """
        asked = dict(query)
        heard = time.monotonic()

        def said() -> None:
            nonlocal heard
            heard = time.monotonic()

        while True:
            try:
                for sent in self.stream(path, asked, patience_s=SILENT_S, said=said):
                    if sent.event == "end":
                        return
                    asked[resume] = sent.id
                    yield sent
            except Unavailable:
                if time.monotonic() - heard > AWAY_S:
                    raise
            if time.monotonic() - heard > AWAY_S:
                text = _("{url} ends every answer before it says anything: its log says why")
                raise Unavailable(text.format(url=self.endpoint.url))
            # A server that ends every stream at once must not be asked without a pause.
            threading.Event().wait(AGAIN_S)

    def events(self, path: str, *, after: int = 0, patience_s: float | None = None) -> Iterator[Event]:
        """Events after that id as they come; ends when none came for `patience_s`, or the server ends it."""
        for sent in self.stream(path, {"after": after}, patience_s=patience_s):
            yield Event.model_validate_json(sent.data)

    def stream(
        self,
        path: str,
        query: Mapping[str, Query],
        *,
        patience_s: float | None = None,
        said: Callable[[], None] | None = None,
    ) -> Iterator[httpx2.ServerSentEvent]:
        """Server-sent events of one connection; at its end `said` is called if the server said anything in it."""
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_S, read=patience_s)
        headers = {"Accept": "text/event-stream"}
        try:
            request = self._http.build_request("GET", _path(path, query), headers=headers, timeout=timeout)
            with contextlib.closing(self._ask(request, stream=True)) as response:
                if response.is_error:
                    response.read()
                    _refuse(response)
                try:
                    yield from httpx2.EventSource(response)
                finally:
                    # Also the comment that it sends in quiet times, which is no event.
                    if said is not None and response.num_bytes_downloaded:
                        said()
        except httpx2.ReadTimeout:
            return
        except httpx2.TransportError as error:
            raise self.endpoint.silent(error) from error

    def workspace(self, reference: str) -> Workspace:
        """The workspace that a person means: `name` (one's own), `owner/name` or an id; a name goes before an id.

        Raises:
            NotFound: there is none that the caller may know of.
        """
        owner, _slash, name = reference.rpartition("/")
        if len(reference) <= _LONGEST:
            found = self.get("workspaces", Page[Workspace], name=name, owner=owner or None).items
            if found:
                return found[0]
            if not owner and is_id(name):
                return self.get(f"workspaces/{name}", Workspace)
        name = repr(reference if len(reference) <= _LONGEST else f"{reference[:_LONGEST]}…")
        raise NotFound(_("there is no workspace {name} (see: mooring workspace list)").format(name=name))

    def _ask(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        # The address is not the name: the certificate is the console's.
        request.extensions = {**request.extensions, "sni_hostname": self.endpoint.host}
        return self._http.send(request, stream=stream)

    def _answered(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, Query] | None = None,
        body: BaseModel | None = None,
        revision: int | None = None,
    ) -> T:
        response = self._send(method, path, query=query or {}, body=body, revision=revision)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            text = _("{url} answered something that is not Mooring's (is it another version, or another server?)")
            raise MooringError(text.format(url=self.endpoint.url)) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Query] | None = None,
        body: BaseModel | None = None,
        revision: int | None = None,
    ) -> httpx2.Response:
        headers = {"If-Match": f'"{revision}"'} if revision is not None else {}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = body.model_dump_json(exclude_unset=True)
        try:
            request = self._http.build_request(method, _path(path, query or {}), content=content, headers=headers)
            response = self._ask(request)
        except httpx2.TransportError as error:
            raise self.endpoint.silent(error) from error
        if not response.is_success:
            _refuse(response)
        return response


def connect(*, timeout_s: float = TIMEOUT_S) -> Api:
    """The API of the server that this person talks to; see `endpoint.find`."""
    return Api(find(), timeout_s=timeout_s)


def _path(path: str, query: Mapping[str, Query]) -> str:
    given = {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items() if v is not None}
    return f"/api/v1/{path}" + (f"?{urlencode(given)}" if given else "")


def _refuse(response: httpx2.Response) -> NoReturn:
    """Raise the error of our tree that a problem document, or a bare status, stands for."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        kind = _BY_STATUS.get(response.status_code, Unavailable if response.status_code == 502 else MooringError)  # noqa: PLR2004
        text = _("the server answered {status} {reason}")
        raise kind(text.format(status=response.status_code, reason=response.reason_phrase)) from None
    raise refusal(problem)


def refusal(problem: Problem) -> MooringError:
    """The error of our tree that a problem document stands for."""
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status, MooringError)
    return kind(problem.detail, field=problem.field)
