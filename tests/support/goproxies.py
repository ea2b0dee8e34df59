"""Our module proxy beside the test, so that the real go command can be a client.

A module of tests takes a fixture from here by its name: `upstream = goproxies.upstream`.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy.config import Config
from mooring.goproxy.service import Lifetimes
from mooring.server.goproxy import Served, serving
from support.elsewhere import elsewhere
from support.gitserver import HOST, GitServer
from support.goupstream import Upstream, go

SMALL = "example.com/x/@v/v1.0.0"
BIG = "example.com/big/@v/v1.0.0.zip"
"""What `upstream` has: a module of a few bytes, and the zip of one that is not sent before it is half received."""


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A local upstream with a checksum database, and two modules in it."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/x", "v1.0.0")
        served.publish("example.com/big", "v1.0.0", {"x.go": "package x\n", "data.bin": os.urandom(700_000)})
        yield served


@pytest.fixture
def config(tmp_path: Path, upstream: Upstream) -> Config:
    """A proxy in front of it that believes nothing for long."""
    lifetimes = Lifetimes(mutable_s=0.0, absent_s=30.0, failed_s=0.0)
    return Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go(), lifetimes=lifetimes)


@pytest.fixture
def proxy(config: Config) -> Iterator[Served]:
    """The same, serving."""
    with running(config) as served:
        yield served


@pytest.fixture
def bystander(tmp_path: Path) -> Iterator[Upstream]:
    """A public upstream, which must not hear of private modules."""
    with Upstream(tmp_path / "upstream").serving() as served:
        yield served


@pytest.fixture
def git(tmp_path: Path) -> Iterator[GitServer]:
    """A private git server."""
    with GitServer(tmp_path / "git").serving() as served:
        yield served


def reading(folder: Path, git: GitServer, upstream: Upstream) -> Config:
    """A proxy that may read the git server."""
    return Config(
        folder / "store",
        upstream=upstream.url,
        sumdb=upstream.sumdb,
        private=(HOST,),
        go=go(),
        credentials=git.credentials(),
    )


def running(config: Config) -> AbstractContextManager[Served]:
    """Serve `config` on a free port until the end of the block."""
    return elsewhere(serving(config, "127.0.0.1", 0))


def get(proxy: Served, path: str, **headers: str) -> httpx2.Response:
    """One GET; header names have underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.get(f"{proxy.url}/{path}", headers=named, timeout=30)


def came_long_ago(store: Path) -> float:
    """Make what is kept below `store` ten minutes old, as the index has no younger ones; the moment."""
    moment = time.time() - 600
    for file in (store / "cache/download").rglob("*.*"):
        os.utime(file, (moment, moment))
    return moment


def wait_for(file: Path) -> None:
    """A zip is kept a moment after its last byte was sent."""
    for _ in range(500):
        if file.exists():
            return
        threading.Event().wait(0.01)
    raise AssertionError(file)
