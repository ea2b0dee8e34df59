"""Workspaces and their events as the API's documents."""

from collections.abc import Sequence

from mooring.api.http.links import workspace_path
from mooring.api.http.schemas import Event, IdleStatus, LimitsInForce, Workspace, moment
from mooring.api.http.services import Services
from mooring.model import workspace as model
from mooring.workspaces import ports

_UNITS = {"cpu": "{:g} cores", "pids": "{} processes"}


async def workspace_documents(services: Services, workspaces: Sequence[model.Workspace]) -> tuple[Workspace, ...]:
    """Workspaces as JSON, with their URLs and what is true of them on this machine."""
    # Once a template, not once a workspace: a look at the template files is not free.
    templates = {workspace.spec.template for workspace in workspaces}
    newest = {name: await services.workspaces.newest_version(name) for name in templates}
    return tuple(_document(services, workspace, newest[workspace.spec.template]) for workspace in workspaces)


def event_document(event: ports.Event) -> Event:
    """The event as JSON."""
    return Event(
        id=event.id,
        workspace=event.workspace,
        at=moment(event.at),
        kind=event.kind,
        text=event.text,
        data=dict(event.data),
    )


def _document(services: Services, workspace: model.Workspace, newest: int | None) -> Workspace:
    spec, hosts, listen = workspace.spec, services.hosts, services.listen
    return Workspace(
        id=workspace.id,
        name=workspace.name,
        owner=workspace.owner,
        template=spec.template,
        template_version=spec.template_version,
        newer_template_version=newest if newest and newest > spec.template_version else None,
        desired=workspace.desired,
        phase=workspace.phase,
        reason=workspace.reason,
        revision=workspace.revision,
        generation=workspace.generation,
        created_at=moment(workspace.created_at),
        started_at=moment(workspace.started_at) if workspace.started_at else None,
        url=listen.url(hosts.workspace(workspace.name, workspace.owner)),
        path_url=listen.url(hosts.paths, workspace_path(workspace)),
        port_url=listen.url(hosts.port(workspace.name, workspace.owner)),
        limits=spec.limits,
        limits_in_force=_in_force(workspace),
        restart_needed=workspace.restart_needed,
        environment=spec.environment,
        repository=spec.repository,
        idle=spec.idle,
        idle_status=_idle(services, workspace),
    )


def _in_force(workspace: model.Workspace) -> LimitsInForce:
    started = workspace.started or workspace.spec
    asked = started.limits.model_dump(include=set(workspace.limited), exclude_none=True)
    return LimitsInForce(**{name: _UNITS.get(name, "{}").format(value) for name, value in asked.items()})


def _idle(services: Services, workspace: model.Workspace) -> IdleStatus:
    status = services.workspaces.idle(workspace)
    awake = workspace.awake_until if workspace.awake_until > services.clock.now() else None
    return IdleStatus(
        stops_at=moment(status.stops_at) if status.stops_at else None,
        why=status.why,
        active_at=moment(workspace.active_at) if workspace.active_at else None,
        awake_until=moment(awake) if awake else None,
    )
