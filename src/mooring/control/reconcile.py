"""The level-based loop: a key is only a name; reconciling it reads everything about it and then acts."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from mooring.control.backoff import Backoff
from mooring.control.queue import Queue
from mooring.control.tasks import Tasks
from mooring.errors import DeadlineExceeded, MooringError

log = structlog.get_logger(__name__)

Reconcile = Callable[[str], Awaitable[float | None]]
"""Makes the world match for one key. Seconds until it wants to look again, None when only an event needs it.

Raises whatever went wrong: the key is tried again after its backoff.
"""


class Reconciler:
    """Runs `reconcile` for every key that is added: serial per key, `workers` keys at a time.

    A call that takes longer than `within_s` is cancelled and counts as failed, so that a world that never answers
    holds up neither its key nor a worker for ever.
    """

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int = 8,
        within_s: float = 120.0,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._name = name
        self._reconcile = reconcile
        self._workers = workers
        self._within_s = within_s
        self._queue = Queue(backoff=backoff, rng=rng)
        self._under_way: set[asyncio.Timeout] = set()

    def start(self, tasks: Tasks) -> None:
        """Start the workers; `tasks` owns them. Keys added before are worked on now."""
        for number in range(self._workers):
            tasks.forever(f"{self._name}-{number}", self._work())

    def add(self, key: str) -> None:
        """Reconcile `key` as soon as possible; what changed need not be said."""
        self._queue.add(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Reconcile `key` in `seconds` at the latest."""
        self._queue.add_after(key, seconds)

    def hasten(self, within_s: float) -> None:
        """Cut off the calls under way that go on for longer than `within_s`; their keys are tried again."""
        at = asyncio.get_running_loop().time() + within_s
        for timeout in self._under_way:
            # One that is being cut off already cannot be changed any more.
            if not timeout.expired():
                timeout.reschedule(min(at, timeout.when() or at))

    @property
    def queue(self) -> Queue:
        """The queue, for health and metrics."""
        return self._queue

    async def _work(self) -> None:
        try:
            while True:
                key = await self._queue.get()
                try:
                    await self._once(key)
                finally:
                    self._queue.done(key)
        finally:
            self._queue.close()

    async def _once(self, key: str) -> None:
        try:
            again_s = await self._bounded(key)
        except asyncio.CancelledError:
            # A cancellation that leaked out of the call itself would end this worker; only our owner's may.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            self._failed(key, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the key is tried again and the worker lives
            self._failed(key, error)
        else:
            self._queue.succeeded(key)
            if again_s is not None:
                self._queue.add_after(key, again_s)

    async def _bounded(self, key: str) -> float | None:
        timeout, began = asyncio.timeout(self._within_s), asyncio.get_running_loop().time()
        try:
            async with timeout:
                self._under_way.add(timeout)
                return await self._reconcile(key)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            took_s = asyncio.get_running_loop().time() - began
            raise DeadlineExceeded(f"reconciling was cut off after {took_s:.3g} s") from error
        finally:
            self._under_way.discard(timeout)

    def _failed(self, key: str, error: Exception | None) -> None:
        failures = self._queue.failures(key) + 1
        delay = self._queue.retry(key)
        log.warning(
            "reconcile failed",
            loop=self._name,
            key=key,
            failures=failures,
            again_in_s=round(delay, 3),
            error=str(error) if error else "cancelled from within",
            # Our own errors say what is wrong; of a foreign one the place is what one needs.
            exc_info=None if error is None or isinstance(error, MooringError) else error,
        )
