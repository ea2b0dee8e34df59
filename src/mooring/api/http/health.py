"""`/healthz` and `/readyz`: the only paths without a token. They name watches and sources, nothing of a person.

An administrator's token adds what is wrong at the gateways: these texts name routes and addresses.
"""

import asyncio
from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from mooring.api.http.auth import Wired, caller_of
from mooring.api.http.schemas import Alive, Health, Watch
from mooring.api.http.services import Services, WatchAge
from mooring.errors import MooringError

router = APIRouter(tags=["health"])
REPORT_MOST_S = 10.0
"""Five reports."""
DATABASE_MOST_S = 5.0
"""Asked at each call: longer ago means that it did not answer."""
SOURCE_MOST_S = 30.0
WHO_WITHIN_S = 2.0
"""The answer must come while the database does not."""
_VERSION = version("mooring")


@router.get("/healthz")
async def alive() -> Alive:
    """The process answers."""
    return Alive(version=_VERSION)


@router.get("/readyz", responses={503: {"model": Health, "description": "Not ready"}})
async def ready(request: Request, services: Wired, response: Response) -> Health:
    """The age of everything that the server must keep seeing, and of what the gateways see; 503 when not ready."""
    database = WatchAge("database", await services.accounts.database_age_s(), DATABASE_MOST_S)
    watches = tuple(map(_watch, (database, *services.watches(), *_gateways(services))))
    problems = _problems(services)
    health = Health(
        ready=services.seeded.is_set() and all(w.ok for w in watches if w.required),
        watches=watches,
        problem_count=len(problems),
        problems=problems if problems and await _is_admin(request) else (),
    )
    response.status_code = 200 if health.ready else 503
    response.headers["Cache-Control"] = "no-store"
    return health


def _gateways(services: Services) -> list[WatchAge]:
    found = []
    for heard in services.reports.heard():
        name = f"gateway/{heard.report.gateway}"
        found.append(WatchAge(name, heard.age_s, REPORT_MOST_S, required=False))
        for source, stale_s in sorted(heard.report.sources.items()):
            age = None if stale_s is None else stale_s + heard.age_s
            found.append(WatchAge(f"{name}/{source}", age, SOURCE_MOST_S, required=False))
    return found


def _problems(services: Services) -> tuple[str, ...]:
    at_gateways = (
        f"gateway/{heard.report.gateway}: {problem}"
        for heard in services.reports.heard()
        for problem in heard.report.problems
    )
    return (*services.problems(), *at_gateways)


async def _is_admin(request: Request) -> bool:
    if "authorization" not in request.headers:
        return False
    try:
        async with asyncio.timeout(WHO_WITHIN_S):
            return (await caller_of(request)).admin
    except (MooringError, TimeoutError):
        return False


def _watch(age: WatchAge) -> Watch:
    ok = age.age_s is not None and age.age_s <= age.most_s
    return Watch(
        name=age.name,
        age_s=None if age.age_s is None else round(age.age_s, 3),
        most_s=age.most_s,
        ok=ok,
        required=age.required,
        starting=age.starting,
    )
