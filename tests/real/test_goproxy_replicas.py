"""Two processes on one store, under load, one of them killed again and again."""

import asyncio
import concurrent.futures
import itertools
import os
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.audit import Finding, audit
from mooring.goproxy.config import Config
from mooring.server.goproxy import build
from support.goupstream import DATABASE, Fault, Upstream, go
from support.replicas import Replica
from support.s3 import s3_server

MODULES = [f"example.com/m{number}" for number in range(8)]
FILES = [f"{module}/@v/v1.0.0.{kind}" for module in MODULES for kind in ("info", "mod", "zip")]
FORKED = [f"example.com/fork{number}" for number in range(3)]
CLIENTS = 8
KILLS = 3


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """Eight modules of 400 KB, which it sends slowly."""
    with Upstream(tmp_path / "upstream").serving() as served:
        for module in MODULES:
            served.publish(module, "v1.0.0", {"x.go": "package x\n", "data": os.urandom(400_000)})
            served.faults[f"{module}/@v/v1.0.0.zip"] = Fault(pace=lambda _: threading.Event().wait(0.02) and None)
        yield served


@dataclass
class Load:
    """Clients that ask both replicas for everything, again and again; what they saw."""

    upstream: Upstream
    lasting: Replica
    mortal: Replica
    stop: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    right: int = 0

    def run(self, seed: int) -> None:
        """One client."""
        order = random.Random(seed)  # noqa: S311 - which file is asked for when
        with httpx2.Client(timeout=60) as http:
            while not self.stop.is_set():
                for name in order.sample(FILES, len(FILES)):
                    for replica in (self.lasting, self.mortal):
                        self._ask(http, replica, name)

    def _ask(self, http: httpx2.Client, replica: Replica, name: str) -> None:
        try:
            answer = http.get(f"{replica.url}/{name}")
        except httpx2.TransportError as error:
            if replica is self.lasting:
                self.wrong.append(f"{name}: {error!r}")
            return
        if answer.status_code != 200 or answer.content != self.upstream.files[name]:
            self.wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")
        self.right += 1


async def problems(config: Config) -> tuple[int, list[Finding]]:
    """How many files an audit of the store looks at, and what it finds."""
    async with build(config) as goproxy:
        found = [finding async for finding in audit(goproxy.store, goproxy.recorded)]
    return len(found), [finding for finding in found if finding.problem]


@pytest.mark.parametrize("storage", ["disk", "s3"])
def test_a_replica_is_killed_under_load(tmp_path: Path, upstream: Upstream, storage: str) -> None:
    """No client of the other one notices, nobody ever gets a wrong or a partial file, and the store is right."""
    with ExitStack() as stack:
        options = ["--upstream", upstream.url, "--sumdb", upstream.sumdb]
        roots = [tmp_path / "store", tmp_path / "store"]
        config = Config(roots[0], upstream="off", sumdb=upstream.sumdb, go=go())
        if storage == "s3":
            bucket = stack.enter_context(s3_server(tmp_path / "s3")).bucket
            options += ["--s3", bucket.url, "--s3-credentials", str(bucket.credentials)]
            roots[1] = tmp_path / "other"
            config = Config(roots[0], s3=bucket, upstream="off", sumdb=upstream.sumdb, go=go())
        lasting, mortal = (Replica(root, options) for root in roots)
        stack.callback(lasting.stop)
        stack.callback(mortal.stop)
        load = Load(upstream, lasting, mortal)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(load.run, seed) for seed in range(CLIENTS)]
            for moment in range(KILLS):
                load.stop.wait(0.1 + 0.15 * moment)
                mortal.kill()
                mortal.start()
            load.stop.set()
        for client in clients:
            client.result()
        assert load.wrong == []
        assert load.right > len(FILES)
        assert asyncio.run(problems(config)) == (len(FILES), [])


def test_both_record_into_one_log(tmp_path: Path, upstream: Upstream) -> None:
    """Replicas that record at the same time, one of them killed meanwhile, make one log without gap or repetition."""
    options = ["--upstream", upstream.url, "--sumdb", upstream.sumdb]
    one, other = (Replica(tmp_path / "store", options) for _ in range(2))
    numbers: list[int] = []

    def look_up(replica: Replica, module: str) -> int | None:
        path = f"sumdb/sum.mooring.internal/lookup/{module}@v1.0.0"
        try:
            answer = httpx2.get(f"{replica.url}/{path}", timeout=60)
        except httpx2.TransportError:
            return None
        return int(answer.text.partition("\n")[0]) if answer.status_code == 200 else None

    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            asked = [pool.submit(look_up, *pair) for pair in itertools.product((one, other), MODULES)]
            other.kill()
            concurrent.futures.wait(asked)
        other.start()
        for replica in (one, other):
            found = [look_up(replica, module) for module in MODULES]
            assert None not in found
            numbers.append(sum(number or 0 for number in found))
            assert sorted(number or 0 for number in found) == list(range(len(MODULES)))
    finally:
        one.stop()
        other.stop()
    assert numbers[0] == numbers[1]
    assert upstream.asked[f"sumdb/{DATABASE}/lookup/{MODULES[0]}@v1.0.0"] >= 1


def test_who_pulled_what_outlives_a_kill(tmp_path: Path, upstream: Upstream) -> None:
    """What was counted a second ago is there after a kill, and so is what came after the one before."""
    replica = Replica(tmp_path / "store", ["--upstream", upstream.url, "--sumdb", upstream.sumdb])
    counts = tmp_path / "store/tallies"
    try:
        for number, module in enumerate(MODULES[:3], 1):
            assert httpx2.get(f"{replica.url}/{module}/@v/v1.0.0.mod").status_code == 200
            for _ in range(500):
                if counts.exists() and module in counts.read_text():
                    break
                threading.Event().wait(0.02)
            replica.kill()
            replica.start()
            found = httpx2.get(f"{replica.url}/-/pulls").json()["pulls"]
            assert [(pull["module"], pull["requests"]) for pull in found] == [
                (name, 1) for name in reversed(MODULES[:number])
            ]
    finally:
        replica.stop()


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[tuple[Upstream, Upstream]]:
    """Two upstreams with the same versions and other files in them; the database knows what the first one has."""
    with Upstream(tmp_path / "one").serving() as one, Upstream(tmp_path / "other").serving() as other:
        other.database = one.database
        for module, upstream in itertools.product(FORKED, (one, other)):
            mod = f"module {module}\n\ngo 1.21\n\n// as {upstream.port} has it\n"
            upstream.publish(module, "v1.0.0", {"go.mod": mod, "data": os.urandom(1000)}, recorded=upstream is one)
        yield one, other


def raced(name: str, replicas: Sequence[Replica], upstreams: Sequence[Upstream]) -> list[httpx2.Response]:
    """What each replica answers, asked at the same moment; their upstreams begin to send at the same time."""
    together = threading.Barrier(2)
    for upstream in upstreams:
        upstream.faults[name] = Fault(pace=lambda at: None if at else together.wait(30) and None, times=1)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda replica: httpx2.get(f"{replica.url}/{name}", timeout=60), replicas))


@pytest.mark.parametrize("kind", ["zip", "mod"])
@pytest.mark.parametrize("vouches", ["database", "notary"])
def test_one_of_two_contents_wins(tmp_path: Path, forks: tuple[Upstream, Upstream], vouches: str, kind: str) -> None:
    """Of two files for one version that come at the same moment one is for everybody; the other is refused and told."""
    nosumdb = ("example.com",) if vouches == "notary" else ()
    options = ["--sumdb", forks[0].sumdb, "--nosumdb", ",".join(nosumdb)]
    with ExitStack() as stack:
        replicas = [Replica(tmp_path / "store", ["--upstream", fork.url, *options]) for fork in forks]
        for replica in replicas:
            stack.callback(replica.stop)
        for module in FORKED:
            name = f"{module}/@v/v1.0.0.{kind}"
            won, lost = sorted(zip(raced(name, replicas, forks), replicas, forks, strict=True), key=_status)
            assert (won[0].status_code, lost[0].status_code) == (200, 502)
            assert won[0].content == won[2].files[name] != lost[2].files[name]
            assert vouches == "notary" or won[2] is forks[0]
            assert "checksum mismatch" in lost[0].text
            told = httpx2.get(f"{lost[1].url}/-/pulls").json()["errors"][0]
            assert (told["what"], told["why"]) == (f"{module}@v1.0.0", lost[0].text.strip())
            for replica in replicas:
                assert httpx2.get(f"{replica.url}/{name}", timeout=60).content == won[0].content
    config = Config(tmp_path / "store", upstream="off", sumdb=forks[0].sumdb, nosumdb=nosumdb, go=go())
    assert asyncio.run(problems(config))[1] == []


def _status(one: tuple[httpx2.Response, Replica, Upstream]) -> int:
    return one[0].status_code
