"""What is believed for how long, and who fetches: on a clock that the tests turn."""

import asyncio
import contextlib
import gc
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from mooring.control.tasks import Tasks
from mooring.errors import InvalidInput, MooringError, NotFound, Unavailable
from mooring.goproxy import dirhash
from mooring.goproxy.faults import Mismatch, NoSpace, Unreadable
from mooring.goproxy.ledger import Ledger
from mooring.goproxy.memory import MemoryStore
from mooring.goproxy.names import Ask, Kind, ask
from mooring.goproxy.notary import Notary
from mooring.goproxy.ports import Download
from mooring.goproxy.remembered import Remembered
from mooring.goproxy.service import Lifetimes, Parts, Proxy
from mooring.goproxy.upstream import Upstream, client
from support.goupstream import make_zip
from support.hands import Hands

LIST = ask("example.com/x", "", Kind.list)
LATEST = ask("example.com/x", "", Kind.latest)
BRANCH = ask("example.com/x", "main", Kind.info)
INFO = ask("example.com/x", "v1.0.0", Kind.info)


class Scripted:
    """A source whose answers the test writes; a verification that believes everything."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | MooringError] = {}
        self.asked: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()

    async def small(self, ask: Ask) -> bytes:
        self.asked[ask.name] += 1
        await self.gate.wait()
        answer = self.answers.get(ask.name, NotFound("not found"))
        if isinstance(answer, MooringError):
            raise answer
        return answer

    @asynccontextmanager
    async def zip(self, ask: Ask) -> AsyncIterator[Download]:
        data = await self.small(ask)

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield Download(len(data), chunks())

    records = False

    async def prepare(self, module: str, version: str) -> None:
        """Nothing."""

    async def check(self, module: str, version: str, h1: str) -> None:
        """Nothing."""


@pytest.fixture
async def hands() -> Hands:
    """A clock."""
    return Hands(2e9)


@pytest.fixture
async def source() -> Scripted:
    """A source."""
    return Scripted()


@pytest.fixture
async def proxy(tmp_path: Path, hands: Hands, source: Scripted) -> AsyncIterator[Proxy]:
    """A proxy over both, with a store in memory."""
    async with Tasks("test") as tasks:
        parts = Parts(MemoryStore(), tmp_path, lambda _: source, lambda _: source)
        yield Proxy(parts, tasks, lifetimes=Lifetimes(), clock=hands)


async def body(proxy: Proxy, wanted: Ask) -> tuple[str, bytes]:
    """How it was answered, and with what."""
    answer = await proxy.get(wanted)
    try:
        if answer.flight is not None:
            return answer.outcome, b"".join([chunk async for chunk in answer.flight.chunks()])
        return answer.outcome, answer.data if answer.blob is None else await answer.blob.read(0, answer.blob.size)
    finally:
        answer.close()


async def test_absence_is_believed_for_its_lifetime(proxy: Proxy, source: Scripted, hands: Hands) -> None:
    """Proven absence is not asked about again until its time is over; then a new tag is seen."""
    for _ in range(3):
        with pytest.raises(NotFound):
            await proxy.get(INFO)
    assert source.asked[INFO.name] == 1
    source.answers[INFO.name] = b'{"Version":"v1.0.0"}'
    hands.seconds += 31
    assert (await body(proxy, INFO))[0] == "miss"
    assert (await body(proxy, INFO))[0] == "hit"


async def test_the_go_mod_of_an_info_is_fetched_ahead(proxy: Proxy, source: Scripted) -> None:
    """Both are asked for at once: one way to the source and back is saved."""
    mod = INFO.sibling(Kind.mod)
    source.answers |= {INFO.name: b'{"Version":"v1.0.0"}', mod.name: b"module example.com/x\n"}
    source.gate.clear()
    async with asyncio.TaskGroup() as group:
        info = group.create_task(proxy.get(INFO, ahead=True))
        while not source.asked[mod.name]:
            await asyncio.sleep(0)
        assert not info.done()
        source.gate.set()
    while (await body(proxy, mod))[0] != "hit":
        await asyncio.sleep(0)
    assert source.asked == {INFO.name: 1, mod.name: 1}


async def test_nothing_is_fetched_ahead_that_nobody_will_ask_for(proxy: Proxy, source: Scripted) -> None:
    """Not of an absence that is known, a kept info or what changes, not where a look would be a record, nor unasked."""
    with pytest.raises(NotFound):
        await proxy.get(INFO)
    with pytest.raises(NotFound):
        await proxy.get(INFO, ahead=True)
    other = ask("example.com/x", "v1.1.0", Kind.info)
    branch = ask("example.com/x", "main", Kind.info)
    source.answers |= {other.name: b'{"Version":"v1.1.0"}', branch.name: b'{"Version":"v1.1.0"}'}
    assert (await body(proxy, other))[0] == "miss"
    for wanted in (other, branch):
        (await proxy.get(wanted, ahead=True)).close()
    third = ask("example.com/x", "v1.2.0", Kind.info)
    source.answers[third.name], source.records = b'{"Version":"v1.2.0"}', True
    (await proxy.get(third, ahead=True)).close()
    await asyncio.sleep(0)
    assert set(source.asked) == {INFO.name, other.name, branch.name, third.name}


async def test_what_goes_wrong_ahead_is_told_to_whoever_asks(proxy: Proxy, source: Scripted) -> None:
    """The info is answered all the same."""
    mod = INFO.sibling(Kind.mod)
    source.answers |= {INFO.name: b'{"Version":"v1.0.0"}', mod.name: Unavailable("down")}
    with structlog.testing.capture_logs() as logs:
        assert (await proxy.get(INFO, ahead=True)).outcome == "miss"
        while not source.asked[mod.name]:
            await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="down"):
            await proxy.get(mod)
    assert not logs


async def test_a_failure_is_no_absence(proxy: Proxy, source: Scripted) -> None:
    """A source that could not answer is asked again by the next request."""
    source.answers[INFO.name] = Unavailable("down")
    for _ in range(3):
        with pytest.raises(Unavailable):
            await proxy.get(INFO)
    assert source.asked[INFO.name] == 3


@pytest.mark.parametrize("kind", [Kind.list, Kind.info, Kind.zip])
async def test_a_repository_that_cannot_be_read_is_left_alone(
    proxy: Proxy, source: Scripted, hands: Hands, kind: Kind
) -> None:
    """It is refused as it was for as long as absence is believed, without another run of git; then it is asked."""
    wanted = ask("example.com/x", "" if kind is Kind.list else "v1.0.0", kind)
    source.answers[wanted.name] = Unreadable("no such repository, or not shown")
    for _ in range(3):
        with pytest.raises(Unreadable, match="not shown"):
            await body(proxy, wanted)
    assert source.asked[wanted.name] == 1
    hands.seconds += 31
    with pytest.raises(Unreadable):
        await body(proxy, wanted)
    assert source.asked[wanted.name] == 2


async def test_a_failed_source_is_left_alone_while_there_is_an_old_answer(
    proxy: Proxy, source: Scripted, hands: Hands
) -> None:
    """An old list is served at once for some seconds after a failure, and then the source is tried again."""
    source.answers[LIST.name] = b"v1.0.0\n"
    assert await body(proxy, LIST) == ("miss", b"v1.0.0\n")
    # The store's own times are the machine's: the hands are far beyond them.
    source.answers[LIST.name] = Unavailable("down")
    for _ in range(3):
        assert await body(proxy, LIST) == ("stale", b"v1.0.0\n")
    assert source.asked[LIST.name] == 2
    hands.seconds += 6
    source.answers[LIST.name] = b"v1.1.0\nv1.0.0\nv0.0.0-20200101000000-abcdefabcdef\n"
    assert await body(proxy, LIST) == ("refreshed", b"v1.0.0\nv1.1.0\n")


@pytest.mark.parametrize("before", ["kept", "absent"])
@pytest.mark.parametrize("wanted", [LIST, LATEST, BRANCH, INFO], ids=["list", "latest", "branch", "info"])
async def test_what_is_new_is_seen_within_a_minute(
    proxy: Proxy, source: Scripted, hands: Hands, wanted: Ask, before: str
) -> None:
    """A new tag, latest or commit of a branch is seen 60 s later, and until half a minute later nobody is asked."""
    hands.seconds = time.time()
    old, new = (b"v1.0.0\n", b"v1.0.0\nv1.1.0\n") if wanted is LIST else (b'{"Version":"v1.0.0"}',) * 2
    if wanted in (LATEST, BRANCH):
        new = b'{"Version":"v1.1.0"}'
    if before == "kept":
        source.answers[wanted.name] = old
        assert (await body(proxy, wanted))[1] == old
    else:
        with pytest.raises(NotFound):
            await proxy.get(wanted)
    source.answers[wanted.name] = new
    hands.seconds += 25
    with contextlib.suppress(NotFound):
        assert (await body(proxy, wanted))[1] == old
    assert source.asked[wanted.name] == 1
    hands.seconds += 35
    assert (await body(proxy, wanted))[1] == new


async def test_a_clock_that_was_set_back_makes_nothing_last(proxy: Proxy, source: Scripted, hands: Hands) -> None:
    """A list that was kept in what is the future now is asked for again, and so is one after a failure."""
    hands.seconds = time.time() - 10 * 365 * 86400
    source.answers[LIST.name] = b"v1.0.0\n"
    assert await body(proxy, LIST) == ("miss", b"v1.0.0\n")
    source.answers[LIST.name] = b"v1.0.0\nv1.1.0\n"
    assert await body(proxy, LIST) == ("refreshed", b"v1.0.0\nv1.1.0\n")


async def test_versions_with_enormous_numbers_are_left_out(proxy: Proxy, source: Scripted) -> None:
    """Nobody can ask for them, and the others are listed all the same."""
    source.answers[LIST.name] = b"v1.0.0\nv1.0." + b"9" * 5000 + b"\n"
    assert await body(proxy, LIST) == ("miss", b"v1.0.0\n")


async def test_the_memory_of_absence_is_bounded() -> None:
    """Names that are long by intent push out others, instead of growing without end."""
    remembered = Remembered(1000)
    for number in range(2000):
        remembered.put(f"{number}" + "x" * 1000, 1.0, NotFound("y" * 1000))
    known = [number for number in range(2000) if remembered.get(f"{number}" + "x" * 1000, 0.0)]
    assert 90 <= len(known) <= 100
    assert known[-1] == 1999
    for number in range(3000):
        remembered.put(f"{number}", 1.0, NotFound("not found"))
    assert sum(remembered.get(f"{number}", 0.0) is not None for number in range(3000)) == 1000


async def test_what_is_remembered_holds_nobody(proxy: Proxy) -> None:
    """An absence outlives those who asked for it, and nothing of what they had in hand."""
    held: weakref.WeakSet[Scripted] = weakref.WeakSet()

    async def request(wanted: Ask) -> None:
        in_hand = Scripted()
        held.add(in_hand)
        with contextlib.suppress(NotFound):
            await proxy.ensure(wanted)

    for wanted in (LIST, LATEST, BRANCH, INFO, INFO.sibling(Kind.mod), INFO.sibling(Kind.zip)):
        await request(wanted)
        await request(wanted)
    gc.collect()
    assert len(held) == 0


async def test_a_list_is_made_of_what_is_kept(proxy: Proxy, source: Scripted) -> None:
    """When nobody has a list any more, the versions that are kept are one."""
    for version in ("v1.10.0", "v1.2.0"):
        name = ask("example.com/x", version, Kind.mod)
        source.answers[name.name] = b"module example.com/x\n"
        await proxy.ensure(name)
    assert await body(proxy, LIST) == ("stale", b"v1.2.0\nv1.10.0\n")


class FullStore(MemoryStore):
    """One that takes nothing."""

    async def healthy(self) -> None:
        raise NoSpace("the disk takes no more")

    async def put(self, name: str, data: bytes) -> None:
        raise NoSpace(f"no room for {len(data)} bytes of {name}")

    async def adopt(self, name: str, file: Path) -> None:
        raise NoSpace(f"no room for {file} as {name}")


@pytest.mark.parametrize("kind", [Kind.info, Kind.mod, Kind.zip])
async def test_what_is_not_kept_is_no_failure_but_for_who_fills_the_store(
    tmp_path: Path, source: Scripted, kind: Kind
) -> None:
    """A full store refuses no answer that is right; whoever fetches ahead is told that it was for nothing, and why."""
    wanted = INFO.sibling(kind)
    source.answers[INFO.name] = b'{"Version":"v1.0.0"}'
    source.answers[INFO.sibling(Kind.mod).name] = b"module example.com/x\n"
    source.answers[INFO.sibling(Kind.zip).name] = make_zip("example.com/x", "v1.0.0", {"x.go": "package x\n"})
    async with Tasks("test") as tasks:
        proxy = Proxy(Parts(FullStore(), tmp_path, lambda _: source, lambda _: source), tasks)
        assert await body(proxy, wanted) == ("miss", source.answers[wanted.name])
        with pytest.raises(NoSpace, match="the disk takes no more"):
            await proxy.ensure(wanted)


async def test_one_fetch_for_all_and_a_caller_that_leaves(proxy: Proxy, source: Scripted) -> None:
    """Equal requests are one fetch, and the first caller's going away does not end it for the others."""
    wanted = ask("example.com/x", "v1.0.0", Kind.zip)
    source.answers[wanted.name] = make_zip("example.com/x", "v1.0.0", {"x.go": "package x\n"})
    source.answers[INFO.name] = b'{"Version":"v1.0.0"}'
    source.gate.clear()
    for one in (wanted, INFO):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(body(proxy, one)) for _ in range(20)]
            await asyncio.sleep(0.01)
            tasks[0].cancel()
            await asyncio.sleep(0.01)
            source.gate.set()
        assert {task.result()[1] for task in tasks[1:]} == {source.answers[one.name]}
        assert source.asked[one.name] == 1
        source.gate.clear()


async def test_many_records_at_once(tmp_path: Path) -> None:
    """However many are checked at the same time, each version is recorded once, and another content is refused."""

    async def mod_hash(module: str, version: str) -> str:
        return dirhash.of_mod(f"{module}{version}".encode())

    notary = Notary(Ledger(tmp_path, "sum.example"), mod_hash)
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            _ = group.create_task(notary.check("example.com/x", f"v1.0.{number % 20}", f"h1:{number % 20}"))
    assert Ledger(tmp_path, "sum.example").size == 20
    with pytest.raises(Mismatch):
        await notary.check("example.com/x", "v1.0.3", "h1:other")
    assert notary.refused == 1
    again = Notary(Ledger(tmp_path, "sum.example"), mod_hash)
    assert again.recorded("example.com/x", "v1.0.3") == "h1:3"
    assert (await again.get("lookup/example.com/x@v1.0.3")).split(b"\n")[1] == b"example.com/x v1.0.3 h1:3"


async def test_no_password_in_what_people_see() -> None:
    """The address of an upstream is shown and handed on without the credentials in it."""
    async with client(1.0) as http:
        upstream = Upstream("https://ann:secret@proxy.example/go", http)
        assert "secret" not in upstream.name
        assert upstream.public_address(INFO) == "https://proxy.example/go/example.com/x/@v/v1.0.0.info"


@pytest.mark.parametrize("base", ["https://", "http:///go", "https://proxy.example:99999"])
async def test_an_upstream_that_is_no_address_is_refused(base: str) -> None:
    """It is said when the proxy is set up, not by each request."""
    async with client(1.0) as http:
        with pytest.raises(InvalidInput, match="must be https://HOST"):
            Upstream(base, http)
