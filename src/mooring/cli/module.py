"""`mooring module`: what the Go module proxy of this Mooring keeps, who pulls it, pins and evictions."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from mooring.api.http.module_schemas import (
    Evict,
    EvictedVersion,
    Eviction,
    Module,
    ModuleDetail,
    ModuleFailure,
    ModuleProxy,
    ModulePull,
    ModuleVersion,
)
from mooring.cli.application import noun
from mooring.cli.client import Api, connect, document
from mooring.cli.completion import modules
from mooring.cli.language import _
from mooring.cli.output import Column, Format, Output, ago, confirm, emit, moment, note, record, rows
from mooring.cli.pinned import Pinned, changed, named
from mooring.model import shown

app = noun(_("See, pin and evict Go modules."))

ModulePath = Annotated[
    str, typer.Argument(metavar="MODULE", help=_("Path of a module that is kept."), autocompletion=modules)
]
ModuleAt = Annotated[
    str,
    typer.Argument(metavar="MODULE", help=_("A module, or one version of it: MODULE@VERSION."), autocompletion=modules),
]


class Everything(ModuleDetail):
    """A module with all its versions, and who pulls it as far as the caller may know."""

    pulls: tuple[ModulePull, ...]


@app.command(help=_("Say how much is kept, how requests ended, and what failed last."))
def status(*, output: Output = Format.table) -> None:
    """Show the proxy as a whole."""
    with connect() as api:
        seen = api.get("modules/@overview", ModuleProxy)
    record(seen, _overview(seen), output)
    if output is Format.table:
        _failures(seen.failures)


@app.command("list", help=_("List the modules that are kept."))
def list_(
    text: Annotated[str, typer.Argument(metavar="TEXT", help=_("Only those with this in their path."))] = "",
    *,
    output: Output = Format.table,
) -> None:
    """List modules."""
    with connect() as api:
        found = list(api.pages("modules", Module, q=text or None))
    columns = [
        Column[Module](_("MODULE"), lambda item: item.module, elastic=True),
        Column[Module](_("NEWEST"), lambda item: item.newest, rank=1, elastic=True),
        Column[Module](_("VERSIONS"), lambda item: str(item.versions), rank=3, right=True),
        Column[Module](_("SIZE"), lambda item: shown.size(item.size), right=True),
        Column[Module](_("REQUESTS"), lambda item: str(item.requests), rank=4, right=True),
        Column[Module](_("USED"), lambda item: ago(item.used_at), rank=2, right=True),
        Column[Module]("", _marks, rank=5),
    ]
    empty = _("No module that is kept has {text} in its path.").format(text=text) if text else _("No modules are kept.")
    rows(found, columns, output, empty=empty)


@app.command(help=_("Show a module: its versions, who pulls it, what failed."))
def show(module: ModulePath, *, output: Output = Format.table) -> None:
    """Show one module."""
    with connect() as api:
        found = _whole(api, module)
    if output is not Format.table:
        record(found, {}, output)
        return
    record(found, _fields(found), output)
    rows(found.items, _VERSIONS, output, empty="")
    _failures(found.failures)


@app.command(help=_("Never evict a module, or one version of it."))
def pin(what: ModuleAt, *, output: Output = Format.table) -> None:
    """Pin."""
    pin = Pinned.of(what, pinned=True)
    with connect() as api:
        api.set(_path(pin.module, "@pin"), version=pin.version or None)
    changed(pin, output)


@app.command(help=_("Let a module, or one version of it, be evicted again."))
def unpin(what: ModuleAt, *, output: Output = Format.table) -> None:
    """Take a pin back."""
    pin = Pinned.of(what, pinned=False)
    with connect() as api:
        api.delete(_path(pin.module, "@pin"), version=pin.version or None)
    changed(pin, output)


@app.command(help=_("Remove a version, or all versions of a module, that can be fetched again."))
def evict(
    what: ModuleAt,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_("Only say what would go."))] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=_("Do not ask."))] = False,
    output: Output = Format.table,
) -> None:
    """Evict; what must stay is named with the reason."""
    module, version = named(what)
    if not (dry_run or yes):
        confirm(_("Evict {what}? It is fetched again when somebody needs it.").format(what=what))
    body = document(Evict, version=version, dry_run=dry_run)
    with connect() as api:
        done = api.post(_path(module, "@evict"), Eviction, body)
    if output is not Format.table:
        record(done, {}, output)
        return
    for item in done.refused:
        note(_("{version} stays: {why}").format(version=item.version, why=item.why))
    if done.removed:
        note(_("Would go:") if dry_run else _("Evicted; fetched again when somebody needs it:"))
    rows(done.removed, _REMOVED, output, empty=_("Nothing can go."))


def _whole(api: Api, module: str) -> Everything:
    found = api.get(_path(module), ModuleDetail, limit=500)
    items, cursor = list(found.items), found.cursor
    while cursor is not None:
        more = api.get(_path(module), ModuleDetail, limit=500, cursor=cursor)
        items += more.items
        cursor = more.cursor
    pulls = tuple(api.pages(_path(module, "@pulls"), ModulePull))
    return Everything(**{**dict(found), "items": tuple(items), "cursor": None}, pulls=pulls)


def _overview(seen: ModuleProxy) -> dict[str, str]:
    most = _(" of {most}").format(most=shown.size(seen.max_size)) if seen.max_size is not None else ""
    kept = _("modules: {modules}, versions: {versions}, files: {files}")
    return {
        _("Problem"): seen.problem,
        _("Size"): shown.size(seen.size) + most,
        _("Kept"): kept.format(modules=seen.modules, versions=seen.versions, files=seen.files),
        _("Hit rate"): "" if seen.hit_rate is None else f"{100 * seen.hit_rate:.1f} %",
        _("Requests"): ", ".join(f"{count} {name}" for name, count in sorted(seen.outcomes.items())),
        _("Counted since"): moment(seen.counted_since),
        _("Started"): moment(seen.started_at),
        "GOPROXY": seen.proxy,
        "GOSUMDB": seen.sumdb,
    }


def _fields(found: Everything) -> dict[str, str]:
    return {
        _("Module"): found.module,
        _("Private"): _("yes; it is never evicted") if found.private else "",
        _("Pinned"): found.pin,
        _("From"): found.source,
        _("Size"): shown.size(found.size),
        _("Requests"): _("{count}, of which {misses} were not kept yet").format(
            count=found.requests, misses=found.misses
        ),
        _("Last pull"): moment(found.pulled_at),
        _("Pulled by"): "\n".join(f"{pull.subject} ({pull.requests})" for pull in found.pulls),
    }


def _failures(failures: Sequence[ModuleFailure]) -> None:
    """Whole: a cause that is cut off is none."""
    if failures:
        emit(
            [
                {_("failed"): item.what, _("ago"): ago(item.at), _("why"): " ".join(item.why.split())}
                for item in failures
            ],
            Format.table,
        )


def _marks(item: Module) -> str:
    return ", ".join(word for word, on in ((_("private"), item.private), (_("pinned"), item.pin)) if on)


def _state(item: ModuleVersion) -> str:
    return ", ".join(word for word, on in ((_("pinned"), item.pin), (_("no zip"), not item.zip)) if on)


def _path(module: str, what: str = "") -> str:
    return f"modules/{quote(module)}" + (f"/{what}" if what else "")


_VERSIONS = [
    Column[ModuleVersion](_("VERSION"), lambda item: item.version, elastic=True),
    Column[ModuleVersion](_("SIZE"), lambda item: shown.size(item.size), right=True),
    Column[ModuleVersion](_("SINCE"), lambda item: f"{item.since:%Y-%m-%d}", rank=2),
    Column[ModuleVersion](_("USED"), lambda item: ago(item.used_at), rank=1, right=True),
    Column[ModuleVersion]("", _state, rank=3),
    Column[ModuleVersion](_("HASH"), lambda item: item.hash, rank=4),
    Column[ModuleVersion](_("ORIGIN"), lambda item: item.origin, rank=5),
]
_REMOVED = [
    Column[EvictedVersion](_("VERSION"), lambda item: item.version),
    Column[EvictedVersion](_("SIZE"), lambda item: shown.size(item.size), right=True),
]
