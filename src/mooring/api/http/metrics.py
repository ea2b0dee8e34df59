"""`/metrics`: the server's counters and the gateways' own, as one Prometheus text."""

import re
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mooring.api.http.auth import Admin, Wired
from mooring.api.http.limits import REFUSED
from mooring.api.http.problem import problems

# A series more for each counter, that says when this process counted it first.
disable_created_metrics()  # type: ignore[no-untyped-call]
router = APIRouter(tags=["health"], responses=problems(401, 403))
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?")
_HEAD = re.compile(r"# (?:HELP|TYPE) (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) ")


@router.get("/metrics", response_class=Response)
async def metrics(caller: Admin, services: Wired) -> Response:  # noqa: ARG001 - the routes in it are everybody's
    """Prometheus text: the server's own counters, then the gateways', each with its name as a label."""
    reports = ((heard.report.gateway, heard.report.metrics) for heard in services.reports.heard())
    return Response(generate_latest(services.registry) + merged(reports).encode(), media_type=_TEXT)


def merged(reports: Iterable[tuple[str, str]]) -> str:
    """One text of several gateways': a family stands together once; other lines are left out."""
    heads: dict[str, dict[str, None]] = {}
    samples: dict[str, list[str]] = {}
    for gateway, text in reports:
        family = ""
        for line in text.splitlines():
            if head := _HEAD.match(line):
                family = head["name"]
                heads.setdefault(family, {})[line] = None
            elif sample := _SAMPLE.fullmatch(line):
                name = family if family and sample["name"].startswith(family) else sample["name"]
                labels = f'gateway="{gateway}"' + (f",{sample['labels']}" if sample["labels"] else "")
                samples.setdefault(name, []).append(f"{sample['name']}{{{labels}}} {sample['value']}")
    return "".join(f"{line}\n" for name, lines in samples.items() for line in (*heads.get(name, ()), *lines))


class Counted:
    """Counts requests and how long they took until the answer began, by route: never by what a caller wrote.

    `paths` has the whole path of each route, by the route's identity.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, paths: Mapping[int, str]) -> None:
        self._app = app
        self._paths = paths
        self._requests = Counter(
            "mooring_api_requests", "Answered requests.", ["method", "path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "mooring_api_seconds", "Until the answer began.", ["method", "path"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method, path = self._labels(scope, message["status"])
                self._requests.labels(method, path, message["status"]).inc()
                self._seconds.labels(method, path).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counted)

    def _labels(self, scope: Scope, status: int) -> tuple[str, str]:
        """Method and path of a request without anything that the caller chose: each label costs memory for ever."""
        path = self._paths.get(id(scope.get("route")))
        if path is None:
            # A gateway with a wrong token is not to be looked for among mistyped addresses.
            return "any", "refused" if REFUSED in scope else "unknown"
        return "any" if status == HTTPStatus.METHOD_NOT_ALLOWED else scope["method"], path
