"""What the API calls, wired by the composition root."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from mooring.accounts.service import Accounts
from mooring.control.clock import Clock
from mooring.goproxy.administration import Administration
from mooring.model.names import Hosts
from mooring.routes.published import Publisher
from mooring.routes.reports import Reports
from mooring.routes.table import RouteTable
from mooring.settings import Listen
from mooring.workspaces.service import WorkspaceService


@dataclass(frozen=True, slots=True)
class WatchAge:
    """One thing that the server must keep seeing: seconds since it last did (None: never), and how many are too many.

    What is not `required` is shown but does not make the server unready (the last good section is still served).
    What is `starting` was never seen, and need not have been by now.
    """

    name: str
    age_s: float | None
    most_s: float
    required: bool = True
    starting: bool = False


@dataclass(frozen=True, slots=True)
class Modules:
    """The Go module proxy. `allowed` are the patterns of the private modules that a user may have.

    `wanted` is whether there is to be one, `proxy` what belongs into GOPROXY outside of workspaces.
    """

    administration: Administration
    allowed: Callable[[str], tuple[str, ...]]
    wanted: Callable[[], bool]
    proxy: str


@dataclass(frozen=True, slots=True)
class Services:
    """`gateway_token` is the gateways' credential, `watches` the ages of the server's own watches.

    `problems` are what is wrong with its own parts, each a line for an administrator.
    `closing` is set when the server is about to stop: streams end by themselves then, instead of being cut. `seeded`
    is set once every section that the server has is in `table`, the grants included.
    """

    accounts: Accounts
    workspaces: WorkspaceService
    table: RouteTable
    publisher: Publisher
    reports: Reports
    hosts: Hosts
    listen: Listen
    gateway_token: str
    watches: Callable[[], tuple[WatchAge, ...]]
    registry: CollectorRegistry
    clock: Clock
    closing: asyncio.Event
    seeded: asyncio.Event
    modules: Modules
    problems: Callable[[], tuple[str, ...]] = tuple
