"""What the server makes of what the module proxy says of itself, and of its silence."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from mooring.control.clock import SystemClock
from mooring.control.tasks import Tasks
from mooring.server.files import make_folders
from mooring.server.goproxy_role import Switch
from mooring.server.modules_health import PATIENCE_S, ModulesHealth
from mooring.settings import Home
from support.modules import short_home
from support.waiting import WITHIN_S

MISTAKE = "goproxy.toml:3: private: must be a list"
GOOD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok\n"


class Hands(SystemClock):
    """The machine's clock, whose hands a test may turn."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def home() -> Iterator[Home]:
    """A home with its folders."""
    with short_home() as made:
        make_folders(made)
        yield made


@asynccontextmanager
async def saying(home: Home, answer: Callable[[], bytes]) -> AsyncIterator[None]:
    """A module proxy that says so of itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        writer.close()

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home.modules_socket))
    async with await asyncio.start_unix_server(serve, sock=listener):
        yield


@asynccontextmanager
async def asked(health: ModulesHealth, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The proxy is asked all the time."""
    monkeypatch.setattr("mooring.server.modules_health._LOOK_S", 0.02)
    async with asyncio.timeout(WITHIN_S), Tasks("test") as tasks:
        tasks.forever("health", health.run())
        yield


def refused(why: str) -> bytes:
    """The role's answer when it is not well."""
    return f"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n{why}\n".encode()


async def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    while not true():
        await asyncio.sleep(0.02)


async def test_what_the_proxy_says_is_wrong_is_a_problem(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 503 is told with its text, and a 200 makes it seen; half an answer of a killed process is none."""
    health = ModulesHealth(home.modules_socket, SystemClock())
    answers = [b"HTTP/1.1", refused(MISTAKE), GOOD]
    said: list[tuple[str, ...]] = []

    def answer() -> bytes:
        said.append(health.problems())
        return answers[min(len(said), len(answers)) - 1]

    assert health.age_s() is None
    async with saying(home, answer), asked(health, monkeypatch):
        await until(lambda: health.age_s() is not None and not health.problems())
    assert said[:3] == [(), (), (f"goproxy: {MISTAKE}",)]


async def test_a_start_is_no_problem_for_as_long_as_it_usually_takes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent, and then without settings yet, it starts and has not been seen; what goes on for longer is a problem."""
    clock = Hands()
    health = ModulesHealth(home.modules_socket, clock)
    starting = refused(Switch().problem)
    looks = 0

    def answer() -> bytes:
        nonlocal looks
        looks += 1
        return starting

    assert (health.is_starting, health.age_s()) == (True, None)
    async with asked(health, monkeypatch):
        await asyncio.sleep(0.1)
        assert (health.is_starting, health.problems()) == (True, ())
        async with saying(home, answer):
            await until(lambda: looks > 2)
            assert (health.is_starting, health.age_s(), health.problems()) == (True, None, ())
            clock.ahead = PATIENCE_S
            await until(health.problems)
            assert (health.is_starting, health.age_s()) == (False, None)
            assert health.problems() == ("goproxy: the module proxy is starting; log/goproxy.log says more",)


async def test_a_mistake_that_a_start_meets_is_told_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start excuses what is so at every start, and nothing else."""
    health = ModulesHealth(home.modules_socket, SystemClock())
    async with saying(home, lambda: refused(MISTAKE)), asked(health, monkeypatch):
        await until(health.problems)
    assert (health.is_starting, health.age_s()) == (False, None)


async def test_the_time_of_a_start_begins_when_the_proxy_does(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins after Mooring is ready: what came before, however long, is not the proxy's."""
    clock = Hands()
    health = ModulesHealth(home.modules_socket, clock)
    async with asked(health, monkeypatch):
        clock.ahead = PATIENCE_S
        await until(health.problems)
        assert health.problems()[0].startswith("goproxy: the module proxy does not answer")
        health.expect()
        assert (health.is_starting, health.problems()) == (True, ())
        await asyncio.sleep(0.1)
        assert health.is_starting
        clock.ahead += PATIENCE_S
        await until(health.problems)


async def test_one_that_is_started_again_has_the_same_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill it is no longer starting for the first time, but within its time it is no problem either."""
    clock = Hands()
    health = ModulesHealth(home.modules_socket, clock)
    answers = [GOOD]
    async with saying(home, lambda: answers[-1]), asked(health, monkeypatch):
        await until(lambda: health.age_s() is not None)
        answers.append(refused(Switch().problem))
        await asyncio.sleep(0.1)
        assert (health.is_starting, health.problems()) == (False, ())
        clock.ahead = PATIENCE_S
        await until(health.problems)
        answers.append(GOOD)
        await until(lambda: not health.problems())
