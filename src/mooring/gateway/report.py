"""What a gateway tells the server of itself every two seconds: `POST /api/v1/gateway/report`.

The routes that only it has are thousands in a large Redis: they go (`PUT /api/v1/gateway/table`) when the server does
not know them in the version that the report names, and never take more than a small part of its time.
"""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import httpx2
import orjson
import structlog

from mooring.errors import MooringError, Unavailable
from mooring.gateway import link as server
from mooring.gateway.ports import Telemetry, TelemetrySnapshot
from mooring.gateway.service import Agent, OwnTable
from mooring.routes.ports import Conflict
from mooring.routes.table import RouteTable
from mooring.routes.wire import route_document
from mooring.settings import ServerLink

log = structlog.get_logger(__name__)

PATH = "/api/v1/gateway/report"
TABLE_PATH = "/api/v1/gateway/table"
TELEMETRY_S = 1.0
_REST = 20
"""After a table the server is left alone for as many times what the table took it."""


class Reporter:
    """Sends reports of `agent` and `telemetry` as the gateway `gateway_id`; a server that is away misses some.

    `problems` says what else is wrong at this gateway, beside what the agent knows.
    """

    def __init__(
        self,
        link: ServerLink,
        agent: Agent,
        telemetry: Telemetry,
        *,
        gateway_id: str,
        problems: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._link = link
        self._agent = agent
        self._telemetry = telemetry
        self._gateway_id = gateway_id
        self._problems = problems
        self._problem: str | None = None
        self._epoch = secrets.token_hex(8)
        self._number = 0
        self._told: tuple[int, tuple[Conflict, ...]] | None = None
        self._rested_at = -math.inf

    async def run(self) -> None:
        """Report every `report_every_s` seconds."""
        while True:
            try:
                with server.translated(self._link):
                    async with server.client(self._link) as client:
                        await self._send_for_ever(client)
            except MooringError as error:
                self._note(error.detail)
            except Exception:
                log.exception("a report failed")
            await asyncio.sleep(self._link.report_every_s)

    async def document(self) -> dict[str, Any]:
        """The report of this moment, as `docs/architecture.md` describes it."""
        problems = (*self._problems(), *self._agent.problems())
        try:
            async with asyncio.timeout(TELEMETRY_S):
                seen = await self._telemetry.read()
        except (Unavailable, TimeoutError) as error:
            seen = TelemetrySnapshot()
            problems = (*problems, str(error) or f"nginx does not answer within {TELEMETRY_S:.0f} s")
        applied = self._agent.applied()
        return {
            "gateway": self._gateway_id,
            "applied": applied and [applied.epoch, applied.number],
            "sources": {name: _seconds(age) for name, age in self._agent.stale().items()},
            "sections": _sections(self._agent.table),
            "activity": dict(seen.activity),
            "connections": dict(seen.connections),
            "nginx": {"workers": list(seen.workers), "restarts": seen.restarts},
            "metrics": seen.metrics,
            # The feed meets the same silence.
            "problems": list(dict.fromkeys(problems)),
            "table": self._version(self._agent.own()),
        }

    async def _send_for_ever(self, client: httpx2.AsyncClient) -> None:
        while True:
            body = orjson.dumps(await self.document())
            response = await client.post(PATH, content=body, headers={"content-type": "application/json"})
            server.check(self._link, response)
            self._note(None)
            if response.status_code == httpx2.codes.ACCEPTED:
                await self._send_table(client)
            await asyncio.sleep(self._link.report_every_s)

    async def _send_table(self, client: httpx2.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._rested_at:
            return
        own = self._agent.own()
        document = _table(own) | {"gateway": self._gateway_id, "version": self._version(own)}
        response = await client.put(
            TABLE_PATH, content=orjson.dumps(document), headers={"content-type": "application/json"}
        )
        self._rested_at = loop.time() + _REST * (loop.time() - began)
        server.check(self._link, response)

    def _version(self, own: OwnTable) -> str | None:
        """Names what `own` is now; None when there is nothing to tell."""
        now = (own.changes, own.conflicts)
        if now != self._told:
            self._told = now
            self._number += 1
        return f"{self._epoch}-{self._number}" if own.sections else None

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("the server takes no report", error=problem)
        self._problem = problem


def _sections(table: RouteTable) -> dict[str, dict[str, int]]:
    """Each section in the table, and how many of its routes lost a conflict: the server cannot see those of here."""
    lost = Counter(conflict.loser.source for conflict in table.conflicts())
    return {
        name: {"rank": section.rank, "routes": len(section.routes), "lost": lost[name]}
        for name, section in table.sections().items()
        if section.routes
    }


def _table(own: OwnTable) -> dict[str, Any]:
    return {
        "sections": {
            name: {"rank": section.rank, "routes": [route_document(route) for route in section.routes.values()]}
            for name, section in own.sections.items()
        },
        "conflicts": [{"loser": asdict(lost.loser), "winner": asdict(lost.winner)} for lost in own.conflicts],
    }


def _seconds(age: float) -> float | None:
    return None if math.isinf(age) else round(age, 3)
