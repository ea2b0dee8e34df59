"""Requests of a stranger that would keep a worker busy for seconds: everybody else waits meanwhile."""

import os
from pathlib import Path

import pytest

from mooring.model.routes import Access, Route
from mooring.model.routes import Backend as Target
from support.grants import GRANTS
from support.nginx import Gateway, backend, gateway

LONG = 30_000
MOST_S = 0.5
"""Of processor time; each of these took one to nine."""
OWN = Access(kind="subjects", subjects=("ann",))
PUBLIC = Access(kind="public")


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway of one worker with a guarded route, a public one and a folder of files."""
    folder = tmp_path / "files"
    folder.mkdir()
    async with backend() as running, gateway(tmp_path, workers=1) as started:
        target = (Target(address=running.address),)
        await started.publish(
            Route(name="guarded", host="a.test", backends=target, access=OWN),
            Route(name="public", host="b.test", backends=target, access=PUBLIC),
            Route(name="files", host="f.test", backends=(Target(files=str(folder)),), access=PUBLIC),
            grants=GRANTS,
        )
        yield started


@pytest.mark.parametrize(
    ("host", "path", "headers", "status"),
    [
        ("a.test", "/", {"Cookie": "a" + " " * LONG + "b"}, 401),
        ("a.test", "/", {"Cookie": "a=" + " " * LONG + "b"}, 401),
        ("a.test", "/", {"Cookie": "mooring=" + " " * LONG + "b"}, 401),
        ("a.test", "/", {"Cookie": "x;" + " " * LONG + ";y"}, 401),
        ("b.test", "/", {"Cookie": "a" + " " * LONG + "b"}, 200),
        ("b.test", "/", {"Cookie": "a;" * (LONG // 2)}, 200),
        ("b.test", "/", {"Cookie": "mooring=;" * (LONG // 9)}, 200),
        ("a.test", "/", {"Authorization": "Bearer" + " a" * (LONG // 2)}, 401),
        ("a." * (LONG // 2) + "test", "/", {}, 400),
        ("a." * (LONG // 2) + "test", "/.mooring/x", {}, 400),
        ("f.test", "/" * LONG + "a", {}, 404),
    ],
)
async def test_no_request_is_worth_a_second_of_a_worker(
    edge: Gateway, host: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Spaces without end, thousands of cookies, a name of thousands of dots, a path of slashes."""
    (worker,) = (await edge.sink.read()).workers
    before = processor_s(worker)
    assert (await edge.ask("GET", host, path, headers)).status == status
    assert processor_s(worker) - before < MOST_S


@pytest.mark.parametrize("length", [253, 254])
async def test_a_host_may_be_as_long_as_a_name(edge: Gateway, length: int) -> None:
    """What is longer is nobody's, whatever route catches all others."""
    host = ("a." * 200)[: length - 4] + "test"
    assert (await edge.get(host)).status == (404 if length == 253 else 400)


def processor_s(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
