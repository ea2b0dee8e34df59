"""The watch on the engine: which containers to look at, and the proof that it still sees them."""

from collections.abc import Awaitable, Callable, Iterable

import orjson
import structlog

from mooring.control.backoff import Backoff
from mooring.control.clock import Clock
from mooring.errors import MooringError
from mooring.workspaces.docker.container import INSTANCE, WORKSPACE
from mooring.workspaces.docker.engine import DockerEngine

log = structlog.get_logger(__name__)

_PULSE_S = 5.0
# The engine keeps the last 256 events; those of the seconds before the list cover what happened during it.
_OVERLAP_S = 5.0
_GUARD_EVERY = 24
_EVENTS = ["start", "die", "oom", "destroy", "pause", "unpause"]


class Watch:
    """Calls `look` with the id of each workspace that something happened to, and of all after a broken connection.

    `lost` is told why, as long as nothing is seen.
    """

    def __init__(
        self,
        engine: DockerEngine,
        instance: str,
        clock: Clock,
        look: Callable[[str], None],
        ran_out: Callable[[str], None],
        lost: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._label = f"{INSTANCE}={instance}"
        self._clock = clock
        self._look = look
        self._ran_out = ran_out
        self._lost = lost
        self._backoff = Backoff(first=0.1, most=2.0)
        self._connected = False
        self._proof = float("-inf")

    def age_s(self) -> float:
        """Seconds since the engine last answered while its events were being followed; `inf` before the first time."""
        return self._clock.monotonic() - self._proof

    async def follow(self, known: Callable[[], Iterable[str]]) -> None:
        """For ever: look at everything, then at what the events name. `known` are ids that may be gone by then."""
        failures = 0
        while True:
            try:
                await self._everything(known)
                failures = 0
                await self._events()
            except Exception as error:  # whatever it is, a watch that ended would freeze every state
                if failures == 0:
                    foreign = None if isinstance(error, MooringError) else error
                    log.warning("the Docker engine is not watched", error=str(error), exc_info=foreign)
                self._lost(str(error) or type(error).__name__)  # without a text it would mean that all is seen
            self._connected = False
            await self._clock.sleep(self._backoff.delay(failures))
            failures += 1

    async def pulse(self, ensure: Callable[[], Awaitable[None]]) -> None:
        """For ever: ask the engine whether it lives. Every two minutes `ensure` puts back what somebody removed."""
        beats = 0
        while True:
            await self._clock.sleep(_PULSE_S)
            beats += 1
            try:
                await self._engine.ping()
                if self._connected:
                    self._proof = self._clock.monotonic()
                if beats % _GUARD_EVERY == 0 and await self._engine.labelled(self._label):
                    await ensure()
            except Exception as error:  # whatever it is, without a pulse nothing that is seen counts any more
                foreign = None if isinstance(error, MooringError) else error
                log.warning("the Docker engine does not do as asked", error=str(error), exc_info=foreign)

    async def _everything(self, known: Callable[[], Iterable[str]]) -> None:
        labelled = await self._engine.labelled(self._label)
        for workspace_id in {*known(), *(labels[WORKSPACE] for labels in labelled)}:
            self._look(workspace_id)

    async def _events(self) -> None:
        filters = {"type": ["container"], "label": [self._label], "event": _EVENTS}
        since = str(int(self._clock.now() - _OVERLAP_S))
        async with self._engine.stream("events", {"filters": orjson.dumps(filters).decode(), "since": since}) as body:
            self._connected = True
            self._proof = self._clock.monotonic()
            async for line in body:
                event = orjson.loads(line)
                workspace_id = event["Actor"]["Attributes"].get(WORKSPACE)
                if workspace_id is not None:
                    if event["Action"] == "oom":
                        self._ran_out(workspace_id)
                    self._look(workspace_id)
