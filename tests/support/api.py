"""The API on a stage: accounts and workspaces in memory, the application, and clients of people and browsers."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from mooring.accounts.memory import MemoryAccounts, MemoryKeys
from mooring.accounts.ports import Role
from mooring.accounts.service import Accounts
from mooring.api.http import services as wired
from mooring.api.http.app import create_app
from mooring.api.http.services import Services, WatchAge
from mooring.control.clock import SystemClock
from mooring.model.names import Hosts, new_id
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.routes.ports import SectionChange
from mooring.routes.published import MemorySections, Publisher
from mooring.routes.reports import Reports
from mooring.settings import Listen
from mooring.workspaces.pages import Owned
from mooring.workspaces.ports import Engine
from support.administration import Modules, modules
from support.serving import serving
from support.workspaces import LIGHT, Stage, StageTemplates, stage

GATEWAY_TOKEN = "the-gateways-own"
CONSOLE = "http://localhost:8080"
PERSON = {"Accept": "text/html,*/*;q=0.8"}
"""What a browser says when its person is to see the answer."""


class Hands(SystemClock):
    """The machine's clock, whose hands a test may turn."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@dataclass
class Api:
    """Everything that a test of the API needs. `ada` is an administrator, `bob` and `eve` are members.

    `watched` is what the server says that it must keep seeing.
    """

    stage: Stage
    services: Services
    app: FastAPI
    clock: Hands
    tokens: dict[str, str]
    modules: Modules
    watched: list[WatchAge]

    def client(self, user: str | None = None, *, host: str = "localhost") -> httpx2.AsyncClient:
        """A client with that user's bearer token, or with none; as a browser it keeps cookies."""
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url=f"http://{host}:8080", headers=headers)

    async def browser(self, user: str, *, host: str = "localhost") -> httpx2.AsyncClient:
        """A client that a ticket signed in at `host`."""
        client = self.client(host=host)
        secret, _ = await self.services.accounts.issue_ticket(user, host=host, path="/")
        response = await client.get("/.mooring/ticket", params={"ticket": secret})
        assert response.status_code == 303, response.text
        # The jar keeps Secure cookies off plain HTTP, which browsers do not for loopback names.
        cookie = response.headers["set-cookie"].partition(";")[0]
        client.headers["Cookie"] = cookie
        client.headers.update(PERSON)
        return client

    def rewire(self, modules: wired.Modules) -> None:
        """The same with another module proxy."""
        self.services = replace(self.services, modules=modules, registry=CollectorRegistry())
        self.app = create_app(self.services)

    async def workspace(self, owner: str, name: str = "one", phase: Phase = Phase.stopped) -> Workspace:
        """A workspace that is in the store and that nothing reconciles."""
        desired = Desired.running if phase is Phase.running else Desired.stopped
        made = Workspace(new_id(), owner, name, Spec(template="light"), desired, phase, created_at=self.clock.now())
        return await self.stage.store.create(made)


@asynccontextmanager
async def api(
    *,
    listen: Listen | None = None,
    domain: str = "localhost",
    runtime: Engine | None = None,
    team: Path | None = None,
) -> AsyncIterator[Api]:
    """The API wired as the server does it; `team` is the folder of the team's templates."""
    clock, registry = Hands(), CollectorRegistry()
    watched = [WatchAge("runtime/process", 0.2, 5.0)]
    with tempfile.TemporaryDirectory(prefix="mrg-") as folder:
        proxy = modules(Path(folder))
        async with stage(runtime=runtime, templates=StageTemplates(LIGHT, team)) as it:
            accounts = Accounts(MemoryAccounts(), MemoryKeys(), clock, Owned(it.store))
            hosts = Hosts(domain)
            services = Services(
                accounts=accounts,
                workspaces=it.service,
                table=it.table,
                publisher=Publisher(it.table, MemorySections(), hosts, ("workspaces", "file", "redis")),
                reports=Reports(clock),
                hosts=hosts,
                listen=listen or Listen(domain=domain),
                gateway_token=GATEWAY_TOKEN,
                watches=lambda: tuple(watched),
                registry=registry,
                clock=clock,
                closing=asyncio.Event(),
                seeded=asyncio.Event(),
                modules=wired.Modules(
                    proxy.operations,
                    # bob's team may have its private modules, eve may have none.
                    allowed=lambda user: ("git.corp.example/team",) if user == "bob" else (),
                    wanted=lambda: True,
                    proxy=f"{(listen or Listen(domain=domain)).url(domain)}goproxy/t-TOKEN",
                ),
            )
            tokens = {}
            for name, role in (("ada", Role.admin), ("bob", Role.member), ("eve", Role.member)):
                await accounts.create_user(name, role)
                _, tokens[name] = await accounts.create_token(name, label="test")
            it.table.apply(SectionChange("workspaces", grants=await accounts.grants()), 10)
            services.seeded.set()
            yield Api(it, services, create_app(services), clock, tokens, proxy, watched)


@asynccontextmanager
async def served(it: Api, folder: Path) -> AsyncIterator[Path]:
    """The application behind a real uvicorn on a unix socket, whose path is given."""
    path = folder / "api.sock"
    config = uvicorn.Config(it.app, uds=str(path), lifespan="off", log_config=None, ws="websockets-sansio")
    async with serving(config, it.services.closing):
        yield path


def over(path: Path, token: str | None = None) -> httpx2.AsyncClient:
    """A client of the application on a unix socket."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost:8080", headers=headers, timeout=20)


def ticket_of(url: str) -> tuple[str, str]:
    """Host and ticket of a one-time link."""
    parts = urlsplit(url)
    assert parts.path == "/.mooring/ticket"
    return parts.hostname or "", parts.query.removeprefix("ticket=")
