"""How the module proxy is: asked every few seconds, for an administrator and for the watch of it."""

import asyncio
from pathlib import Path

from mooring.control.clock import Clock
from mooring.errors import MooringError, Unavailable

STARTING = "the module proxy is starting"
"""What the role says of itself until it has tried its settings: news only when it goes on for too long."""
SOURCE = "goproxy: "
"""How a problem of the module proxy begins among those of everything."""
PATIENCE_S = 15.0
"""Seconds of silence that are no news: a start, or one after a kill."""
_LOOK_S = 2.0
_WITHIN_S = 2.0
_MAX_ANSWER = 16 * 1024


class ModulesHealth:
    """What the role that listens at `socket` says of itself; `run` it for ever."""

    def __init__(self, socket: Path, clock: Clock) -> None:
        self._socket = socket
        self._clock = clock
        self._spoke = clock.monotonic()
        self._answered: float | None = None
        self._problem = ""

    def age_s(self) -> float | None:
        """Seconds since the proxy last said that all is well; None: never."""
        return None if self._answered is None else self._clock.monotonic() - self._answered

    @property
    def is_starting(self) -> bool:
        """Whether it was never well and nothing is wrong either: it is within the time that a start usually takes."""
        return self._answered is None and not self._problem

    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, for an administrator."""
        return (SOURCE + self._problem,) if self._problem else ()

    def expect(self) -> None:
        """From now on the proxy is on its way: the time of its start begins here."""
        self._spoke, self._problem = self._clock.monotonic(), ""

    async def run(self) -> None:
        """Ask again and again."""
        while True:
            await self._ask()
            await self._clock.sleep(_LOOK_S)

    async def _ask(self) -> None:
        now = self._clock.monotonic()
        try:
            async with asyncio.timeout(_WITHIN_S):
                problem = await _health(self._socket)
        except (OSError, TimeoutError, ValueError, MooringError):
            self._wait(now, "the module proxy does not answer; log/goproxy.log says why")
            return
        if problem == STARTING:
            self._wait(now, f"{STARTING}; log/goproxy.log says more")
            return
        self._spoke, self._problem = now, problem
        if not problem:
            self._answered = now

    def _wait(self, now: float, problem: str) -> None:
        if now - self._spoke > PATIENCE_S:
            self._problem = problem


async def _health(path: Path) -> str:
    """What the proxy says is wrong; empty when nothing is."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(b"GET /-/healthz HTTP/1.1\r\nHost: goproxy\r\nConnection: close\r\n\r\n")
        answer = await reader.read(_MAX_ANSWER)
        while chunk := await reader.read(_MAX_ANSWER):
            answer += chunk
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise Unavailable("no answer")
    if head.startswith(b"HTTP/1.1 200 "):
        return ""
    return body.decode(errors="replace").strip() or "the module proxy is not well and does not say why"
