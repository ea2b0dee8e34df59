"""The queue and the reconcile loop under thousands of simulated schedules, delays and faults."""

import asyncio
import random
from collections import Counter

import pytest
import structlog

from mooring.control.backoff import Backoff
from mooring.control.queue import Queue
from mooring.control.reconcile import Reconciler
from mooring.control.tasks import Tasks
from mooring.errors import Unavailable
from support.simulation import Failed, SimulatedLoop, explore, run

KEYS = ("a", "b", "c", "d")
WORKERS = 3


@pytest.fixture(autouse=True)
def quiet() -> object:
    """Thousands of intended failures are no news."""
    with structlog.testing.capture_logs() as logs:
        yield logs


class World:
    """What the reconciler must make true: `actual` follows `wanted`. Its faults are drawn from the schedule's seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wanted = dict.fromkeys(KEYS, 0)
        self.actual = dict.fromkeys(KEYS, 0)
        self.inside: Counter[str] = Counter()
        self.twice: set[str] = set()
        self.most_at_once = 0
        self.faulty = True

    async def reconcile(self, key: str) -> float | None:
        """Read, wait, act; anything may go wrong in between."""
        self.inside[key] += 1
        if self.inside[key] > 1:
            # Raised here it would be one failure more, which is tried again.
            self.twice.add(key)
        self.most_at_once = max(self.most_at_once, self.inside.total())
        try:
            seen = self.wanted[key]
            await asyncio.sleep(self.rng.choice((0, 0, 0.01, 1)))
            if self.faulty:
                await self._fault()
            self.actual[key] = seen
            return self.rng.choice((None, None, 0, 5.0))
        finally:
            self.inside[key] -= 1

    async def _fault(self) -> None:
        kind = self.rng.randrange(12)
        if kind == 0:
            raise Unavailable("the database is away")
        if kind == 1:
            raise ValueError("a bug")
        if kind == 2:
            raise asyncio.CancelledError  # A cancellation that leaks from within.
        if kind == 3:
            raise TimeoutError
        if kind == 4:
            await asyncio.Event().wait()  # Never answers.


async def converges(rng: random.Random) -> None:
    """Whatever the order and the faults: each key ends as it was wanted last, serially, at most N at once."""
    world = World(rng)
    reconciler = Reconciler("test", world.reconcile, workers=WORKERS, within_s=3.0, rng=rng, backoff=Backoff(most=2.0))
    early = rng.random() < 0.5
    async with Tasks("simulated") as tasks:
        if early:
            reconciler.start(tasks)
        for _ in range(rng.randrange(1, 30)):
            key = rng.choice(KEYS)
            world.wanted[key] += 1
            reconciler.add_after(key, rng.choice((0, 0, 0, 0.5, 3)))
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice((0, 0.005, 0.5, 4)))
        if not early:
            reconciler.start(tasks)
        await asyncio.sleep(rng.choice((0, 1, 20)))
        world.faulty = False
        await asyncio.sleep(60)
        assert world.actual == world.wanted
        assert world.most_at_once <= WORKERS
    assert not world.twice, "reconciled twice at the same time"


async def stops_at_any_moment(rng: random.Random) -> None:
    """An owner that ends in the middle of anything leaves no task, no timer and nothing half done."""
    world = World(rng)
    async with Tasks("simulated") as tasks:
        reconciler = Reconciler("test", world.reconcile, workers=WORKERS, within_s=3.0, rng=rng)
        reconciler.start(tasks)
        for _ in range(20):
            reconciler.add_after(rng.choice(KEYS), rng.choice((0, 0.5, 100)))
        await asyncio.sleep(rng.uniform(0, 6))
    assert not world.inside.total()
    assert not world.twice, "reconciled twice at the same time"


class EveryAdd:
    """Checks the queue's promise: after an add, some work that begins later takes the key."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.queue = Queue(rng=rng)
        self.owed: set[str] = set()
        self.working: set[str] = set()
        self.twice: set[str] = set()

    def add(self, key: str) -> None:
        """Add, and owe a later beginning."""
        self.owed.add(key)
        self.queue.add(key)

    async def work(self) -> None:
        """Take keys, and sometimes add to the one at work."""
        while True:
            key = await self.queue.get()
            if key in self.working:
                # Raised here it would end this worker, and nobody else would hear of it.
                self.twice.add(key)
            self.working.add(key)
            self.owed.discard(key)
            await asyncio.sleep(self.rng.choice((0, 0.1)))
            if self.rng.random() < 0.3:
                self.add(key)
            self.working.discard(key)
            self.queue.done(key)


async def no_add_is_lost(rng: random.Random) -> None:
    """Adds from anywhere, also to a key at work and while workers are cancelled, are each followed by work."""
    checked = EveryAdd(rng)
    async with Tasks("workers") as tasks:
        workers = [tasks.spawn(f"{n}", checked.work()) for n in range(3)]
        for _ in range(40):
            checked.add(rng.choice(KEYS))
            await asyncio.sleep(rng.choice((0, 0, 0.03)))
            idle = [worker for worker in workers if not worker.done()]
            if len(idle) > 1 and not checked.working and rng.random() < 0.1:
                idle[0].cancel()
        await asyncio.sleep(100)
        assert not checked.owed
        assert not checked.twice, "two worked on one key"
        assert not checked.queue.busy


@pytest.mark.parametrize(
    ("scenario", "seeds"), [(converges, 2000), (stops_at_any_moment, 1000), (no_add_is_lost, 2000)]
)
def test_every_schedule_keeps_the_promises(scenario: object, seeds: int) -> None:
    """Thousands of orders and faults; each is another seed."""
    explore(scenario, seeds=seeds)


class Forgetful(Queue):
    """A queue with a fault that only some schedules show: an add to a key at work is lost."""

    def add(self, key: str) -> None:
        if key not in self._working:
            super().add(key)


def test_a_failure_names_the_seed_that_replays_it() -> None:
    """The simulation finds a fault that is there, and the seed in its message fails again."""

    async def forgets(rng: random.Random) -> None:
        checked = EveryAdd(rng)
        checked.queue = Forgetful(rng=rng)
        async with Tasks("workers") as tasks:
            for n in range(3):
                tasks.spawn(f"{n}", checked.work())
            for _ in range(5):
                checked.add(rng.choice(KEYS))
                await asyncio.sleep(rng.choice((0, 0.03)))
            await asyncio.sleep(100)
            assert not checked.owed

    with pytest.raises(Failed, match="fails with seed") as first:
        explore(forgets, seeds=1000)
    seed = int(str(first.value).rpartition("=")[2])
    for _ in range(3):
        with pytest.raises(Failed, match=f"seed {seed}:"):
            explore(forgets, seeds=1, only=seed)


def test_the_same_seed_is_the_same_schedule() -> None:
    """Two runs of one seed do the same things in the same order, and other seeds do others."""

    def trace(seed: int) -> list[str]:
        seen: list[str] = []

        async def scenario(rng: random.Random) -> None:
            async def note(key: str) -> float | None:
                seen.append(f"{key} at {asyncio.get_running_loop().time():.6f}")
                if rng.random() < 0.3:
                    raise Unavailable("away")
                return None

            async with Tasks("trace") as tasks:
                reconciler = Reconciler("trace", note, rng=rng)
                reconciler.start(tasks)
                for key in KEYS:
                    reconciler.add(key)
                await asyncio.sleep(50)

        run(scenario, seed)
        return seen

    assert trace(1) == trace(1)
    assert len({tuple(trace(seed)) for seed in range(20)}) > 10


def test_the_earliest_of_several_delays_counts() -> None:
    """A key is worked on once at the earliest time that was asked for."""

    async def scenario(rng: random.Random) -> None:
        queue = Queue(rng=rng)
        for seconds in (10, 3, 7):
            queue.add_after("a", seconds)
        assert await queue.get() == "a"
        assert asyncio.get_running_loop().time() == 3
        queue.done("a")
        await asyncio.sleep(100)
        assert not queue.busy

    run(scenario, 0)


def test_the_backoff_grows_for_each_key_alone_and_ends_with_success() -> None:
    """Failures of one key delay no other, and after a success the first delay is short again."""

    async def scenario(_: random.Random) -> None:
        queue = Queue(backoff=Backoff(first=1, factor=2, most=5, jitter=0))
        assert [queue.retry("a") for _ in range(4)] == [1, 2, 4, 5]
        assert queue.retry("b") == 1
        assert (queue.failures("a"), queue.failures("b")) == (4, 1)
        queue.succeeded("a")
        assert queue.retry("a") == 1
        queue.close()

    run(scenario, 0)


def test_an_add_during_a_backoff_works_at_once() -> None:
    """News about a key that fails is worth a try now."""
    seen: list[float] = []

    async def scenario(_: random.Random) -> None:
        async def fails(_key: str) -> None:
            seen.append(asyncio.get_running_loop().time())
            raise Unavailable("away")

        async with Tasks("simulated") as tasks:
            reconciler = Reconciler("test", fails, backoff=Backoff(first=1000, jitter=0))
            reconciler.start(tasks)
            reconciler.add("a")
            await asyncio.sleep(5)
            reconciler.add("a")
            await asyncio.sleep(5)

    run(scenario, 0)
    assert seen == [0, 5]


def test_a_call_that_never_answers_is_given_up(quiet: list[dict[str, object]]) -> None:
    """Its time is bounded, it is said in the log with the key, and it is tried again."""
    calls: list[float] = []

    async def scenario(_: random.Random) -> None:
        async def never(_key: str) -> None:
            calls.append(asyncio.get_running_loop().time())
            await asyncio.Event().wait()

        async with Tasks("simulated") as tasks:
            reconciler = Reconciler("test", never, within_s=10, backoff=Backoff(first=1, jitter=0))
            reconciler.start(tasks)
            reconciler.add("a")
            await asyncio.sleep(22)

    run(scenario, 0)
    assert calls == [0, 11]
    assert quiet[0]["key"] == "a"
    assert "cut off after 10 s" in str(quiet[0]["error"])


def test_calls_under_way_can_be_cut_off_sooner() -> None:
    """Those alone: the key's next call has all its time again, and a call that would end sooner does."""
    calls: list[tuple[float, str]] = []

    async def scenario(_: random.Random) -> None:
        async def hangs(key: str) -> None:
            calls.append((asyncio.get_running_loop().time(), key))
            await asyncio.sleep(2 if key == "quick" else 1000)

        async with Tasks("simulated") as tasks:
            reconciler = Reconciler("test", hangs, within_s=50, backoff=Backoff(first=1, jitter=0))
            reconciler.start(tasks)
            reconciler.add("quick")
            reconciler.add("slow")
            await asyncio.sleep(1)
            reconciler.hasten(5)
            await asyncio.sleep(40)
            assert reconciler.queue.failing == ("slow",)

    run(scenario, 0)
    assert calls == [(0, "quick"), (0, "slow"), (7, "slow")]


def test_a_scenario_that_waits_for_ever_or_spins_is_a_failure() -> None:
    """The simulation ends by itself in both cases."""

    async def waits(_: random.Random) -> None:
        await asyncio.Event().wait()

    async def spins(_: random.Random) -> None:
        while True:
            await asyncio.sleep(0)

    for scenario in (waits, spins):
        with pytest.raises(Failed):
            run(scenario, 0)


def test_time_passes_only_by_the_clock_of_the_simulation() -> None:
    """A day of waiting takes no time."""
    loop = SimulatedLoop(random.Random(0))  # noqa: S311 - a schedule is no secret
    loop.run_until_complete(asyncio.sleep(86400))
    assert loop.time() == 86400
    loop.close()
