"""A route sink whose faults are drawn from a seed: slow, away, silent, forgetful, and it lies about what arrived."""

import asyncio
import random

from mooring.errors import Conflict, LimitExceeded, Unavailable
from mooring.gateway.memory import MemorySink
from mooring.model.grants import Grants
from mooring.routes.ports import Delta, Revision


class FaultySink:
    """A `MemorySink` that fails while `faulty` is on."""

    def __init__(self, rng: random.Random, *, capacity: int = 2**20) -> None:
        self.inner = MemorySink(capacity=capacity)
        self.faulty = True
        self._rng = rng
        self._unsure = False
        self.violations: list[str] = []

    async def apply(self, revision: Revision, delta: Delta) -> None:
        if self._unsure and not delta.complete:
            self.violations.append(f"{revision}: a delta against a table that nobody knows")
        self._unsure = True
        await self._fault()
        try:
            await self.inner.apply(revision, delta)
        except (Conflict, LimitExceeded):
            self._unsure = False
            raise
        await self._fault()
        self._unsure = False

    async def grant(self, grants: Grants) -> None:
        await self._fault()
        await self.inner.grant(grants)
        await self._fault()

    async def applied(self) -> Revision | None:
        await self._fault()
        return await self.inner.applied()

    async def _fault(self) -> None:
        await asyncio.sleep(self._rng.choice((0, 0, 0.01)))
        kind = self._rng.randrange(12) if self.faulty else -1
        if kind == 0:
            raise Unavailable("the sink is away")
        if kind == 1:
            self.inner.forget()
        if kind == 2:
            raise ValueError("a bug")
        if kind == 3 and self._rng.random() < 0.2:
            await asyncio.Event().wait()
        if kind == 4:
            self.inner.forget()
            raise Unavailable("the sink was restarted")
