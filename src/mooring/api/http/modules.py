"""`/modules`: what the Go module proxy keeps, who pulls what, pins and evictions.

A module's path has slashes; what is asked about it stands behind an `@`, which no path holds, as in Go's own protocol.
Private modules are shown to those who may have them, and to administrators, who could make themselves a token.
"""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Path, Query, Response

from mooring.accounts.credentials import Caller
from mooring.api.http import paging
from mooring.api.http.auth import Admin, Calling, Wired
from mooring.api.http.documents import DocumentRoute
from mooring.api.http.module_schemas import (
    MAX_VERSION,
    Evict,
    EvictedVersion,
    Eviction,
    Module,
    ModuleDetail,
    ModuleFailure,
    ModuleProxy,
    ModulePull,
    ModuleVersion,
    RefusedVersion,
)
from mooring.api.http.paging import Cursor, Limit
from mooring.api.http.problem import problems
from mooring.api.http.schemas import Page, moment
from mooring.api.http.services import Services
from mooring.errors import Unavailable
from mooring.goproxy.access import WORKSPACE, Subject
from mooring.goproxy.administration import Administration, Evictions, ModuleSummary, VersionDetail
from mooring.goproxy.tallies import Failure

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/modules", tags=["modules"], responses=problems(401, 503), route_class=DocumentRoute)

_LONGEST = 1024
ModulePath = Annotated[str, Path(max_length=_LONGEST)]
Text = Annotated[str, Query(max_length=_LONGEST, description="A part of the module's path, in whatever case.")]
Version = Annotated[str, Query(max_length=MAX_VERSION, description="One version; none is the whole module.")]


@router.get("", responses=problems(422))
async def page(
    caller: Calling, services: Wired, q: Text = "", cursor: Cursor = None, limit: Limit = 100
) -> Page[Module]:
    """The modules of which something is kept, by path."""
    after = paging.decode(cursor) or ""
    found = await _administration(services).modules(viewer(services, caller), q, after, limit)
    return Page(items=tuple(_module(item) for item in found.modules), cursor=paging.encode(found.after))


@router.get("/@overview")
async def overview(caller: Calling, services: Wired) -> ModuleProxy:
    """Sizes, how requests ended, and the last failures with their causes."""
    seen = await _administration(services).overview(viewer(services, caller))
    return ModuleProxy(
        size=seen.size,
        max_size=seen.max_bytes,
        files=seen.files,
        modules=seen.modules,
        versions=seen.versions,
        outcomes=seen.outcomes,
        hit_rate=seen.hit_rate,
        counted_since=moment(seen.counted_since),
        started_at=moment(seen.started),
        problem=seen.problem,
        failures=tuple(_failure(failure) for failure in seen.failures),
        proxy=services.modules.proxy,
        sumdb=seen.sumdb,
    )


@router.get("/{module:path}/@pulls", responses=problems(422))
async def pulls(caller: Calling, services: Wired, module: ModulePath) -> Page[ModulePull]:
    """Who pulls a module, most first: administrators see everybody, others their own workspaces."""
    found = await _administration(services).pulls(module)
    own = f"{WORKSPACE}{caller.user}/"
    return Page(
        items=tuple(
            ModulePull(subject=pull.subject, requests=pull.requests)
            for pull in found
            if caller.admin or pull.subject.startswith(own)
        )
    )


@router.put("/{module:path}/@pin", status_code=204, responses=problems(403, 422))
async def pin(caller: Admin, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """Never evict a version, or the whole module. Twice is once."""
    await _administration(services).pin(module, version)
    log.info("module pinned", by=caller.user, module=module, version=version)
    return Response(status_code=204)


@router.delete("/{module:path}/@pin", status_code=204, responses=problems(403, 409, 422))
async def unpin(caller: Admin, services: Wired, module: ModulePath, version: Version = "") -> Response:
    """Take a pin back."""
    await _administration(services).unpin(module, version)
    log.info("module unpinned", by=caller.user, module=module, version=version)
    return Response(status_code=204)


@router.post("/{module:path}/@evict", responses=problems(403, 404, 409, 422))
async def evict(caller: Admin, services: Wired, module: ModulePath, body: Evict) -> Eviction:
    """Remove zips that can come back: private modules, pins and what the upstream offers no more stay."""
    done = await _administration(services).evict(module, body.version, dry_run=body.dry_run)
    if not body.dry_run:
        log.info("module evicted", by=caller.user, module=module, version=body.version)
    return _eviction(done)


# Last: a path takes everything that is none of the above.
@router.get("/{module:path}", responses=problems(404, 422))
async def show(
    caller: Calling, services: Wired, module: ModulePath, cursor: Cursor = None, limit: Limit = 100
) -> ModuleDetail:
    """A module with its versions, the highest first."""
    after = paging.decode(cursor) or ""
    found = await _administration(services).module(viewer(services, caller), module, after, limit)
    return ModuleDetail(
        **_summary(found.summary),
        source=found.source,
        misses=found.misses,
        pulled_at=moment(found.last_pull) if found.last_pull else None,
        failures=tuple(_failure(failure) for failure in found.failures),
        items=tuple(_version(version) for version in found.versions),
        cursor=paging.encode(found.after),
    )


def viewer(services: Services, caller: Caller) -> Subject:
    """The caller, and the private modules that they may see."""
    return Subject(caller.user, ("*",) if caller.admin else services.modules.allowed(caller.user))


def _administration(services: Services) -> Administration:
    if not services.modules.wanted():
        raise Unavailable("this Mooring has no module proxy: goproxy.toml says enabled = false")
    return services.modules.administration


def _module(summary: ModuleSummary) -> Module:
    return Module(**_summary(summary))


def _summary(summary: ModuleSummary) -> dict[str, Any]:
    return {
        "module": summary.module,
        "private": summary.private,
        "versions": summary.versions,
        "newest": summary.newest,
        "size": summary.size,
        "since": moment(summary.since),
        "used_at": moment(summary.used),
        "requests": summary.requests,
        "pin": summary.pin,
    }


def _version(found: VersionDetail) -> ModuleVersion:
    return ModuleVersion(
        version=found.version,
        since=moment(found.since),
        used_at=moment(found.used),
        size=found.size,
        zip=found.zip,
        pin=found.pin,
        hash=found.hash,
        vouched_by=found.vouched_by,
        origin=found.origin,
    )


def _failure(failure: Failure) -> ModuleFailure:
    return ModuleFailure(
        module=failure.module,
        what=failure.what,
        at=moment(failure.at),
        code=failure.code,
        why=failure.why,
        times=failure.times,
    )


def _eviction(done: Evictions) -> Eviction:
    return Eviction(
        removed=tuple(EvictedVersion(version=item.version, size=item.size) for item in done.removed),
        refused=tuple(RefusedVersion(version=item.version, why=item.why) for item in done.refused),
        dry_run=done.dry_run,
    )
