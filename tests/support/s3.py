"""A real S3 server with one bucket, which checks the signature of every request."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mooring.goproxy.s3 import Bucket
from mooring.settings import cache
from support.mooring import free_port
from support.waiting import pause

_SERVER = cache() / "versitygw/versitygw"
_WITHIN_S = 30.0


@dataclass
class S3Server:
    """It listens on `port`; `bucket` leads to it."""

    port: int
    bucket: Bucket
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """The storage is gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Serve a bucket below `folder` until the end of the block."""
    (folder / "objects/modules").mkdir(parents=True, exist_ok=True)
    (folder / "iam").mkdir(exist_ok=True)
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = tester\naws_secret_access_key = correct-horse\n")
    port = free_port()
    command = [_SERVER, "--port", f"127.0.0.1:{port}", "--access", "tester", "--secret", "correct-horse", "--quiet"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "posix", folder / "objects"], stdout=log, stderr=log, cwd=folder)
    server = S3Server(port, Bucket(f"http://127.0.0.1:{port}/modules/kept", credentials), process)
    try:
        _wait(server, folder / "log")
        yield server
    finally:
        server.kill()


def _wait(server: S3Server, log: Path) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the S3 server did not start:\n{log.read_text()}")
        pause(0.02)
