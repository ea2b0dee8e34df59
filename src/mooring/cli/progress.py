"""Waiting for a workspace: one live line on a terminal, plain lines elsewhere, always on standard error."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Self

import typer

from mooring.api.http.schemas import Event, Workspace
from mooring.cli.client import Api
from mooring.cli.color import console, live
from mooring.cli.language import _
from mooring.cli.output import note
from mooring.cli.plain import clean, indented
from mooring.errors import DeadlineExceeded, MooringError, NotFound, Unavailable
from mooring.model.workspace import Phase

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

LOOK_S = 1.0
"""How long to listen for an event before looking again: not every change has one."""
AGAIN_S = 0.3

Wait = Annotated[bool, typer.Option("--wait", "-w", help=_("Wait until it is so; show what happens."))]
Timeout = Annotated[int, typer.Option("--timeout", help=_("Seconds to wait at most."), metavar="SECONDS", min=1)]


class _Line:
    """The live line: the workspace's name and its newest event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = ""
        self._status: Status | None = None
        if live():
            self._status = console(stderr=True).status(self._text(_("waiting")))

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """Show what happened; the same again is not news."""
        if text == self._said:
            return
        self._said = text
        if self._status is not None:
            self._status.update(self._text(text.partition("\n")[0]))
        else:
            note(f"{self._name}: {indented(text)}")

    def _text(self, text: str) -> "Text":
        from rich.text import Text  # noqa: PLC0415 - see color

        # Not a plain string: Rich would take brackets in it for its own markup.
        return Text(f"{self._name}: {clean(text)}", no_wrap=True, overflow="ellipsis")


def newest_event(api: Api, workspace: Workspace) -> int:
    """The id behind which the events of what is about to be asked begin."""
    return max((event.id for event in api.pages(f"workspaces/{workspace.id}/events", Event)), default=0)


def until_running(api: Api, workspace: Workspace, *, after: int, timeout_s: int) -> Workspace:
    """Wait for the start that `workspace` was answered with.

    Raises:
        MooringError: it failed; the text says why.
        DeadlineExceeded: it takes longer.
    """

    def reached(now: Workspace | None) -> bool:
        if now is None:
            raise NotFound(_("{name} was deleted meanwhile").format(name=workspace.name))
        current = now.generation >= workspace.generation
        if current and now.phase is Phase.failed:
            text = _("{name} failed: {why} (see: mooring workspace logs {name})")
            raise MooringError(text.format(name=now.name, why=clean(now.reason.partition("\n")[0])))
        # A restart leaves the phase at running until the old start is stopped; then nothing has been started yet.
        return current and now.phase is Phase.running and now.started_at is not None

    found = _wait(api, workspace, reached, after, timeout_s)
    return found if found is not None else workspace


def until_stopped(api: Api, workspace: Workspace, *, after: int, timeout_s: int) -> Workspace:
    """Wait until nothing of it runs."""
    found = _wait(api, workspace, lambda now: now is None or now.phase is Phase.stopped, after, timeout_s)
    return found if found is not None else workspace


def until_gone(api: Api, workspace: Workspace, *, after: int, timeout_s: int) -> None:
    """Wait until it and its files are removed."""
    _wait(api, workspace, lambda now: now is None, after, timeout_s)


def _wait(
    api: Api, workspace: Workspace, reached: Callable[[Workspace | None], bool], after: int, timeout_s: int
) -> Workspace | None:
    deadline = time.monotonic() + timeout_s
    with _Line(workspace.name) as line:
        while time.monotonic() < deadline:
            try:
                now = _look(api, workspace)
                if reached(now):
                    return now
                after = _listen(api, workspace, after, line)
            except Unavailable as error:
                # The server may be on its way back; without a pause a refused connection would spin.
                line.say(error.detail)
                threading.Event().wait(AGAIN_S)
    text = _("{name}: not done after {seconds} s, and goes on (see: mooring workspace events {name})")
    raise DeadlineExceeded(text.format(name=workspace.name, seconds=timeout_s))


def _look(api: Api, workspace: Workspace) -> Workspace | None:
    try:
        return api.get(f"workspaces/{workspace.id}", Workspace)
    except NotFound:
        return None


def _listen(api: Api, workspace: Workspace, after: int, line: _Line) -> int:
    """Show the next event, if one comes soon; returns the id to go on behind."""
    try:
        for event in api.events(f"workspaces/{workspace.id}/events", after=after, patience_s=LOOK_S):
            line.say(event.text)
            return event.id
    except NotFound:
        pass
    return after
