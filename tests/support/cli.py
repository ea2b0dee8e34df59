"""The command line against the real application: a server on a loopback port, and `mooring` as a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from mooring.model.workspace import Desired, Phase
from mooring.workspaces.ports import Engine
from support.api import Api, api
from support.certificates import self_signed
from support.serving import serving

WITHIN_S = 60


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    status: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> object:
        """Its output, read."""
        return json.loads(self.out)


@dataclass
class Cli:
    """A person at a machine: `home` is where Mooring's state is, and where the command line finds the server."""

    api: Api
    home: Path
    port: int

    def environment(self, **more: str) -> dict[str, str]:
        """What `mooring` runs with."""
        person = {"HOME": str(self.home.parent), "MOORING_HOME": str(self.home), "PATH": os.environ["PATH"]}  # noqa: TID251
        return {**person, "COLUMNS": "80", "LANG": "C.UTF-8", "TZ": "UTC", **more}

    async def __call__(self, *arguments: str, data: bytes = b"", **more: str) -> Done:
        """Run `mooring ARGUMENTS`."""
        return await run(sys.executable, "-m", "mooring", *arguments, data=data, environment=self.environment(**more))

    async def good(self, *arguments: str) -> Done:
        """The same, and it must succeed."""
        done = await self(*arguments)
        assert done.status == 0, done
        return done


async def run(*command: str | Path, environment: Mapping[str, str], data: bytes = b"") -> Done:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate(data)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"), out)


@asynccontextmanager
async def command_line(folder: Path, *, runtime: Engine | None = None, tls: bool = False) -> AsyncIterator[Cli]:
    """A server on a loopback port, and the command line of its administrator `ada`.

    With `tls` its certificate is for the name `localhost` and for no address.
    """
    home = folder / "home"
    (home / "run").mkdir(parents=True)
    more: dict[str, Any] = {}
    if tls:
        for name, pem in zip(("cert.pem", "key.pem"), self_signed("localhost"), strict=True):
            (home / name).write_bytes(pem)
        more = {"ssl_certfile": home / "cert.pem", "ssl_keyfile": home / "key.pem"}
    async with api(runtime=runtime, team=home / "templates") as it:
        config = uvicorn.Config(
            it.app,
            host="127.0.0.1",
            port=0,
            lifespan="off",
            log_config=None,
            ws="websockets-sansio",
            ws_ping_interval=0.3,
            # As the server does it: a slow reader answers no ping for as long as it is slow.
            ws_ping_timeout=None,
            **more,
        )
        async with serving(config, it.services.closing) as (_, port):
            announce(home, port, it.tokens["ada"], home / "cert.pem" if tls else None)
            yield Cli(it, home, port)


def announce(home: Path, port: int, token: str, authority: Path | None = None) -> None:
    """What `mooring up` leaves for the command line on the same machine."""
    (home / "run").mkdir(parents=True, exist_ok=True)
    document = {
        "url": f"{'https' if authority else 'http'}://localhost:{port}",
        "console": "localhost",
        "address": "127.0.0.1",
        "port": port,
        "authority": str(authority) if authority else None,
    }
    (home / "run" / "endpoint.json").write_text(json.dumps(document))
    (home / "admin-token").write_text(token + "\n")


async def until(true: Callable[[], object]) -> None:
    """Wait for something to become so."""
    async with asyncio.timeout(WITHIN_S):
        while not true():
            await asyncio.sleep(0.01)


async def runs(cli: Cli, name: str, owner: str = "ada") -> str:
    """The id of a workspace that is running, whatever a reconciler thinks of it."""
    made = await cli.api.stage.create(name) if owner == "ada" else await cli.api.workspace(owner, name)
    await cli.api.stage.until(made.id, Phase.running)
    assert (await cli.api.stage.store.get(made.id)).desired is Desired.running
    return made.id
