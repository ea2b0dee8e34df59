"""A command in a workspace, joined to this process: the WebSocket of the API on one side, our descriptors on the other.

Frames are binary; the first byte is the channel: 0 standard input, 1 standard output, 2 standard error, 3 control
(JSON). See `docs/reference/api.md`, exec.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from mooring.api.http.schemas import Problem
from mooring.cli import terminal
from mooring.cli.client import refusal
from mooring.cli.endpoint import Endpoint
from mooring.cli.language import _
from mooring.control.tasks import Tasks
from mooring.errors import InvalidInput, MooringError, Unavailable
from mooring.settings import environment

STDIN, STDOUT, STDERR, CONTROL = range(4)
OPEN_S = 30.0
CLOSE_S = 1.0
MAX_FRAME = 16 * 2**20
SHELL = ("sh", "-c", 'exec "${SHELL:-/bin/sh}"')
"""Not a login shell: /etc/profile would take the workspace's PATH away."""
_TERMINAL = ("TERM", "COLORTERM")


@dataclass(frozen=True, slots=True)
class Call:
    """What to run, in which workspace (its id), with which additions to its environment."""

    workspace: str
    command: Sequence[str]
    tty: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Session:
    """A running command."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.status: int | None = None

    async def write(self, data: bytes) -> None:
        """To its standard input; empty bytes close it."""
        if data:
            await self._connection.send(bytes([STDIN]) + data)
        else:
            await self._control({"eof": True})

    async def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal."""
        await self._control({"resize": [columns, rows]})

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """What it writes, until it ends; then `status` is its exit status.

        Raises:
            MooringError: it could not be started; the server's own error.
            Unavailable: the connection broke off.
        """
        try:
            async for frame in self._connection:
                data = frame if isinstance(frame, bytes) else frame.encode()
                channel = data[0] if data else -1
                if channel in (STDOUT, STDERR):
                    yield channel, data[1:]
                elif channel == CONTROL and self._ended(json.loads(data[1:])):
                    return
        except ConnectionClosed:
            pass
        raise Unavailable(_("the connection to the workspace broke off"))

    def _ended(self, said: Mapping[str, Any]) -> bool:
        if "error" in said:
            raise refusal(Problem.model_validate(said["error"]))
        if "exit" in said:
            self.status = int(said["exit"])
        return self.status is not None

    async def _control(self, what: Mapping[str, object]) -> None:
        await self._connection.send(bytes([CONTROL]) + json.dumps(what).encode())


@contextlib.asynccontextmanager
async def opened(endpoint: Endpoint, call: Call) -> AsyncIterator[Session]:
    """Start the command; the end of the context ends it.

    Raises:
        MooringError: the server refuses.
        Unavailable: the server does not answer.
    """
    query = urlencode([*(("command", word) for word in call.command), ("tty", str(call.tty).lower())])
    scheme = {"http": "ws", "https": "wss"}[endpoint.scheme]
    dialing = dial(
        f"{scheme}://{endpoint.netloc}/api/v1/workspaces/{call.workspace}/exec?{query}",
        host=endpoint.address,
        port=endpoint.port,
        ssl=endpoint.tls(),
        additional_headers={"Authorization": f"Bearer {endpoint.token}"},
        proxy=None if endpoint.direct else True,
        compression=None,
        open_timeout=OPEN_S,
        close_timeout=CLOSE_S,
        # While a slow reader of our output holds everything up, no pong is read either: TCP watches the peer instead.
        ping_interval=None,
        max_size=MAX_FRAME,
    )
    try:
        connection = await dialing
    except InvalidStatus as error:
        raise _refused(error) from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise endpoint.silent(error) from error
    async with connection:
        _watch_peer(connection)
        session = Session(connection)
        start: dict[str, object] = {"environment": dict(call.environment)}
        if call.tty and (size := terminal.size(0)):
            start["resize"] = size
        with contextlib.suppress(ConnectionClosed):
            await session._control(start)  # noqa: SLF001 - the first frame is the start of the session
        yield session


def run(endpoint: Endpoint, workspace: str, command: Sequence[str], *, tty: bool) -> int:
    """Run a command with this process's input and output; returns its exit status.

    Raises:
        InvalidInput: `tty` without a terminal to give.
    """
    if tty and not os.isatty(0):
        raise InvalidInput(_("--tty needs a terminal, and standard input is none"), field="--tty")
    passed = {name: value for name, value in environment().items() if tty and name in _TERMINAL}
    return asyncio.run(joined(endpoint, Call(workspace, command, tty, passed)))


async def joined(endpoint: Endpoint, call: Call) -> int:
    """The command's exit status, after its input and output have been carried from and to ours."""
    with terminal.unwinding():
        async with opened(endpoint, call) as session, Tasks("exec", stop_within_s=CLOSE_S) as tasks:
            with contextlib.ExitStack() as stack:
                if call.tty:
                    stack.enter_context(terminal.raw(0))
                    _follow_size(session, tasks)
                _input = tasks.spawn("input", _carry_input(session))
                async for channel, data in session.output():
                    await terminal.write(1 if channel == STDOUT else 2, data)
        return session.status if session.status is not None else 1


async def _carry_input(session: Session) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            data = await terminal.read(0)
            await session.write(data)
            if not data:
                return


def _follow_size(session: Session, tasks: Tasks) -> None:
    async def tell() -> None:
        if size := terminal.size(0):
            with contextlib.suppress(ConnectionClosed):
                await session.resize(*size)

    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, lambda: tasks.spawn("resize", tell()))


def _watch_peer(connection: ClientConnection) -> None:
    peer: socket.socket = connection.transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        peer.setsockopt(socket.IPPROTO_TCP, option, seconds)


def _refused(error: InvalidStatus) -> MooringError:
    response = error.response
    try:
        return refusal(Problem.model_validate_json(response.body or b""))
    except ValidationError:
        text = _("the server answered {status} {reason}")
        return Unavailable(text.format(status=response.status_code, reason=response.reason_phrase))
