"""The module proxy behind a real gateway: nginx in this process's care, the role as a process that can be killed."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mooring.gateway.config import Modules
from mooring.goproxy import access, clearance
from mooring.goproxy.config import Config
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.policy import Filter
from mooring.settings import Home, Installation, Listen, cache, dump
from support.nginx import CONSOLE, Gateway, Reply, gateway, parse

WITHIN_S = 30.0


@contextmanager
def short_home() -> Iterator[Home]:
    """A home in a short folder: sockets have short names."""
    folder = Path(tempfile.mkdtemp(prefix="mgm-", dir="/tmp"))
    home = Home(folder)
    for made in (home.run, home.run / "c", home.logs):
        made.mkdir(mode=0o700)
    yield home
    shutil.rmtree(folder)


@dataclass
class Front:
    """A gateway with a module proxy's store; the role behind it runs between `start_role` and `kill_role`."""

    home: Home
    gateway: Gateway
    console: str = CONSOLE
    role: subprocess.Popen[bytes] | None = None
    _hold: int = -1

    @property
    def store(self) -> Path:
        return self.home.modules / "cache/download"

    def keep(self, module: str, version: str, kind: Kind, content: bytes) -> Path:
        """Put a file into the store by hand; its path."""
        path = self.store / ask(module, version, kind).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def token(self, name: str, *private: str) -> str:
        """A new token."""
        return access.make(self.home.modules_tokens, name, private)

    def clear(self, *, open_to_all: bool = False, **more: object) -> None:
        """Write down what the role would have; `more` are settings of the proxy."""
        tokens = None if open_to_all else self.home.modules_tokens
        config = Config(self.home.modules, tokens=tokens, **more)  # type: ignore[arg-type]
        beside = self.home.run / "policy.new"
        beside.write_bytes(clearance.document(config, *Filter(config.filter).now()))
        beside.replace(self.home.modules_policy)

    async def get(self, path: str, *, token: str = "", method: str = "GET", **headers: str) -> Reply:
        """Ask the gateway for a path of the protocol."""
        segment = f"/t-{token}" if token else ""
        return await self.gateway.ask(method, self.console, f"/goproxy{segment}{path}", headers)

    async def until(self, status: int, path: str, *, token: str = "", **headers: str) -> Reply:
        """The answer, once it has that status."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                answer = await self.get(path, token=token, **headers)
                if answer.status == status:
                    return answer
                await asyncio.sleep(0.05)

    async def ask_role(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Ask the role itself, without the gateway."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.console}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in (headers or {}).items()]
        return await self.raw_role("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def raw_role(self, request: bytes) -> Reply:
        """Send the role these very bytes."""
        async with asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_unix_connection(self.home.modules_socket)
            writer.write(request)
            answer = await reader.read()
            writer.transport.abort()
        return parse(answer)

    async def start_role(self, settings: str) -> None:
        """Start the role with this `goproxy.toml`, and wait until it serves."""
        self.home.modules_settings.write_text(settings)
        installation = Installation(self.home, Listen(port=1), editor=cache() / "editor/bin/code-server")
        with tempfile.TemporaryFile() as file:
            file.write(dump(installation))
            file.flush()
            lifeline, self._hold = os.pipe()
            command = [sys.executable, "-P", "-m", "mooring.server.role", "goproxy"]
            fds = (file.fileno(), lifeline)
            self.role = subprocess.Popen(
                [*command, f"--settings={fds[0]}", f"--lifeline={fds[1]}"], pass_fds=fds, start_new_session=True
            )
            os.close(lifeline)
        async with asyncio.timeout(WITHIN_S):
            while not await self._serves():
                assert self.role.poll() is None, (self.home.logs / "goproxy.log").read_text()
                await asyncio.sleep(0.05)

    async def _serves(self) -> bool:
        try:
            return (await self.ask_role("GET", "/-/healthz")).status == 200
        except OSError:
            return False

    def kill_role(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the role; a kill is no orderly stop."""
        if self.role is not None:
            self.role.send_signal(number)
            self.role.wait(WITHIN_S)
            os.close(self._hold)
            self.role = None

    def log(self) -> str:
        """What the role wrote down."""
        return (self.home.logs / "goproxy.log").read_text()


@asynccontextmanager
async def front(home: Home, *, console: str = CONSOLE, workers: int = 2) -> AsyncIterator[Front]:
    """A gateway that knows of a module proxy; no role runs yet."""
    modules, containers = Modules.of(home), home.containers_socket
    async with gateway(
        home.root, console=console, workers=workers, modules=modules, modules_socket=containers
    ) as running:
        found = Front(home, running, console)
        try:
            yield found
        finally:
            found.kill_role(signal.SIGTERM)
