"""A route sink whose faults are drawn from a seed: slow, away, silent, forgetful, and it lies about what arrived."""

import asyncio
import random

from mooring.errors import Unavailable
from mooring.gateway.memory import MemorySink
from mooring.routes.ports import Delta, Revision


class FaultySink:
    """A `MemorySink` that fails while `faulty` is on."""

    def __init__(self, rng: random.Random, *, capacity: int = 2**20) -> None:
        self.inner = MemorySink(capacity=capacity)
        self.faulty = True
        self._rng = rng

    async def apply(self, revision: Revision, delta: Delta) -> None:
        await self._fault("before")
        await self.inner.apply(revision, delta)
        await self._fault("after")

    async def applied(self) -> Revision | None:
        await self._fault("before")
        return await self.inner.applied()

    async def _fault(self, _when: str) -> None:
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
