"""Clients that want more of the stand-alone proxy than they should have: its connections, its memory."""

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from mooring.goproxy.config import Config
from mooring.server import patience
from support.goproxies import running
from support.goupstream import Upstream, go
from support.replicas import Replica

LARGE = "module example.com/large\n// " + "x" * (6 * 2**20) + "\n"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A local upstream with a large go.mod."""
    with Upstream(tmp_path / "upstream").serving() as served:
        served.publish("example.com/large", "v1.0.0", {"go.mod": LARGE})
        yield served


def connected(url: str, stack: ExitStack, request: bytes = b"") -> socket.socket:
    """A connection that takes little at a time, with the beginning of a request."""
    address = urlsplit(url)
    client = stack.enter_context(socket.socket())
    client.settimeout(30)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    client.sendall(request)
    return client


@pytest.mark.parametrize("begun", [b"", b"GET /example.com/large/@v/li", b"GET / HTTP/1.1\r\nX: "])
def test_a_request_that_never_comes_is_not_waited_for(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """A connection without a whole request is closed; one that has had its answer is kept for the next one."""
    monkeypatch.setattr(patience, "HEAD_S", 1.0)
    with running(config(tmp_path, upstream)) as proxy, ExitStack() as stack, httpx2.Client() as client:
        assert client.get(f"{proxy.url}/-/healthz").status_code == 200
        assert connected(proxy.url, stack, begun).recv(100) == b""
        assert connected(proxy.url, stack, b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\n" + begun).recv(12)
        assert client.get(f"{proxy.url}/-/healthz").status_code == 200


@pytest.mark.parametrize("more", [b"a: b\r\n" * 1000, b"x" * 6000])
@pytest.mark.parametrize(
    "begun", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET /-/healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /"]
)
def test_headers_without_end_are_refused(tmp_path: Path, upstream: Upstream, begun: bytes, more: bytes) -> None:
    """They would be kept in memory until there is none left; others are answered, and a body is no part of them."""
    with running(config(tmp_path, upstream)) as proxy, ExitStack() as stack:
        client = connected(proxy.url, stack, begun)
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - whichever of them meets the end
            for _ in range(10_000):
                client.sendall(more)
            raise AssertionError("60 MB of headers were taken")
        assert httpx2.post(f"{proxy.url}/-/healthz", content=b"x" * 2**20, timeout=30).status_code == 405
        assert httpx2.get(f"{proxy.url}/-/healthz", headers={"x": "y" * 30_000}, timeout=30).status_code == 200


def config(tmp_path: Path, upstream: Upstream) -> Config:
    """A proxy in front of the upstream."""
    return Config(tmp_path / "store", upstream=upstream.url, sumdb=upstream.sumdb, go=go())


def test_it_has_as_many_files_as_it_may() -> None:
    """A shell's usual limit of 1,024 would let a thousand connections keep everybody else out."""
    program = (
        "import resource\nfrom mooring.server.patience import open_many_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))\nopen_many_files()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(4096, 4096)\n"


def test_a_large_go_mod_is_no_reason_to_hold_it_once_a_client(tmp_path: Path, upstream: Upstream) -> None:
    """Clients that read slowly share what the disk has: 40 of them cost less than four copies."""
    own = ["--upstream", upstream.url, "--sumdb", upstream.sumdb]
    replica = Replica(tmp_path / "store", own)
    path = "/example.com/large/@v/v1.0.0.mod"
    try:
        for _ in range(2):
            assert httpx2.get(replica.url + path, timeout=60).text == LARGE
        before = resident(replica)
        with ExitStack() as stack:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            clients = [connected(replica.url, stack, request) for _ in range(40)]
            for client in clients:
                assert client.recv(12) == b"HTTP/1.1 200"
            assert resident(replica) - before < 4 * len(LARGE)
    finally:
        replica.stop()


def resident(replica: Replica) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{replica.pid}/statm").read_text().split()[1]) * resource.getpagesize()
