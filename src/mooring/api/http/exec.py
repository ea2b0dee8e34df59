"""`/workspaces/{id}/exec`: a command in a workspace over a WebSocket; the frames are in `docs/reference/api.md`."""

import asyncio
import json
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, WebSocket
from pydantic import Field, StrictInt, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect

from mooring.accounts.credentials import Caller
from mooring.api.http.auth import Calling, Wired, as_subject
from mooring.api.http.documents import MOST_VALUES, crowded, read
from mooring.api.http.limits import MOST
from mooring.api.http.problem import describe
from mooring.api.http.services import Services
from mooring.api.http.workspaces import Entered
from mooring.control.tasks import Tasks
from mooring.errors import DeadlineExceeded, InvalidInput, MooringError
from mooring.model.routes import Document
from mooring.model.wording import said
from mooring.model.workspace import Environment
from mooring.workspaces.ports import Channel, ExecSession

T = TypeVar("T")
router = APIRouter(prefix="/workspaces", tags=["workspaces"])

STDIN, STDOUT, STDERR, CONTROL = range(4)
FIRST_FRAME_S = 10.0
_NORMAL, _POLICY, _BROKEN, _RESTART = 1000, 1008, 1011, 1012
_CHANNELS = {Channel.stdout: STDOUT, Channel.stderr: STDERR}

Side = Annotated[StrictInt, Field(ge=1, le=10_000)]


class Begin(Document):
    """The client's first frame: it starts the command."""

    environment: Environment = Field(default_factory=dict)
    resize: tuple[Side, Side] | None = None


class Control(Document):
    """A later control frame: the terminal's columns and rows, or no more input."""

    resize: tuple[Side, Side] | None = None
    eof: Literal[True] | None = None


_BEGIN = TypeAdapter(Begin)
_CONTROL = TypeAdapter(Control)


@router.websocket("/{workspace_id}/exec")
async def exec_command(
    socket: WebSocket,
    workspace: Entered,
    caller: Calling,
    services: Wired,
    command: Annotated[list[str], Query(min_length=1, max_length=256)],
    tty: Annotated[bool, Query()] = False,  # noqa: FBT002 - a query parameter
) -> None:
    """Run `command` in the workspace's folder, with its environment and limits."""
    await socket.accept()
    try:
        begin = await _begin(socket)
        session = await services.workspaces.exec(as_subject(caller), workspace.id, command, begin.environment, tty=tty)
    except WebSocketDisconnect:
        return
    except MooringError as error:
        await _fail(socket, error)
        return
    try:
        if begin.resize:
            await session.resize(*begin.resize)
        await _run(socket, session, services, caller)
    finally:
        await session.close()


async def _run(socket: WebSocket, session: ExecSession, services: Services, caller: Caller) -> None:
    """Carry both ways until the command, the client, its credential or the server ends."""
    async with Tasks("exec", stop_within_s=2.0) as tasks:
        output = tasks.spawn("output", _output(socket, session))
        revoked = tasks.spawn("revoked", services.accounts.until_invalid(caller))
        closing = tasks.spawn("closing", services.closing.wait())
        client = tasks.spawn("input", _input(socket, session))
        ends = {output, revoked, closing, client}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    broken = next((error for task in done & {output, client} if (error := task.exception())), None)
    if output in done and broken is None:
        await _send_control(socket, {"exit": output.result()})
        await socket.close(_NORMAL)
    elif revoked in done:
        await socket.close(_POLICY, "the credential is not valid any more")
    elif closing in done:
        await socket.close(_RESTART, "the server stops")
    elif isinstance(broken, InvalidInput):
        await socket.close(_POLICY, "a frame could not be read")
    elif isinstance(broken, Exception):
        # The engine went away under the command, whose end nobody knows.
        await _fail(socket, broken, _BROKEN)


async def _output(socket: WebSocket, session: ExecSession) -> int:
    async for channel, data in session.output():
        await socket.send_bytes(bytes([_CHANNELS[channel]]) + data)
    return await session.wait()


async def _input(socket: WebSocket, session: ExecSession) -> None:
    """Until the client is gone.

    Raises:
        InvalidInput: for a frame that is none of ours.
    """
    try:
        while True:
            channel, data = _split(await socket.receive())
            if channel == STDIN:
                # Empty bytes would close the input: that is what {"eof": true} is for.
                if data:
                    await session.write(data)
                continue
            control = _validated(_CONTROL, channel, data)
            if control.resize:
                await session.resize(*control.resize)
            if control.eof:
                await session.write(b"")
    except WebSocketDisconnect:
        return


async def _begin(socket: WebSocket) -> Begin:
    try:
        async with asyncio.timeout(FIRST_FRAME_S):
            channel, data = _split(await socket.receive())
    except TimeoutError:
        raise DeadlineExceeded(f"the first frame must come within {FIRST_FRAME_S:g} s") from None
    return _validated(_BEGIN, channel, data)


def _split(message: Any) -> tuple[int, bytes]:  # noqa: ANN401 - a message of the ASGI server
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    frame: bytes | None = message.get("bytes")
    if not frame or frame[0] not in (STDIN, CONTROL):
        raise InvalidInput("frames must be binary, the first byte 0 (input) or 3 (control)")
    return frame[0], frame[1:]


def _validated(adapter: TypeAdapter[T], channel: int, data: bytes) -> T:
    if channel != CONTROL:
        raise InvalidInput("the first frame must be control (3)")
    if len(data) > MOST or crowded(data):
        raise InvalidInput(f"a control frame must hold at most {MOST} bytes and {MOST_VALUES} values")
    try:
        document = read(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("a control frame must be JSON in UTF-8, and not nested too deep") from error
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        text = said(first)
        raise InvalidInput(f"{field}: {text}" if field else text, field=field or None) from error


async def _fail(socket: WebSocket, error: Exception, code: int = _POLICY) -> None:
    problem, _ = describe(error)
    await _send_control(socket, {"error": problem.model_dump(exclude_none=True)})
    await socket.close(code)


async def _send_control(socket: WebSocket, document: dict[str, Any]) -> None:
    await socket.send_bytes(bytes([CONTROL]) + json.dumps(document).encode())
