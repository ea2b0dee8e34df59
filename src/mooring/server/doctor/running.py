"""The Mooring that runs, or why none does."""

import http.client
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mooring.accounts.disk import read_secret
from mooring.errors import MooringError
from mooring.server.doctor.asking import ask
from mooring.server.doctor.findings import Finding, Verdict
from mooring.server.doctor.machine import examine_port
from mooring.server.embedded import running
from mooring.server.logs import ended_for, last_words
from mooring.server.modules_health import SOURCE
from mooring.settings import Home, Listen, cache

_MOST_PROBLEMS = 5
"""More of them than fit below each other are one thing that is wrong, usually."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a Mooring that runs says of itself at `/readyz`; `status` is 0 when its server does not answer."""

    pid: int
    status: int
    document: dict[str, Any]

    @property
    def unseen(self) -> list[dict[str, Any]]:
        """What it must keep seeing and does not. The module proxy is asked itself (`doctor/modules.py`)."""
        return [each for each in self.document.get("watches", ()) if not each["ok"] and each["name"] != "goproxy"]

    @property
    def modules_start(self) -> bool:
        """Whether the module proxy is within the time that its start usually takes."""
        return any(each["name"] == "goproxy" and each.get("starting") for each in self.document.get("watches", ()))


def hear(home: Home) -> Said | None:
    """What it says; None: no Mooring runs. Raises MooringError: of the lock, whether one does cannot be known."""
    found = running(home)
    if found is None:
        return None
    status, body = ask(home.api_socket, "localhost", "/readyz", _token(home))
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return Said(found.pid, status, document if isinstance(document, dict) else {})


def examine_server(home: Home, said: Said | None) -> Iterator[Finding]:
    """Whether Mooring runs and is ready; what it has lost sight of and says is wrong. `said`: see `hear`."""
    if said is None:
        yield from examine_port(Listen())
        yield _at_rest(home)
        return
    yield from _build(said.pid)
    if said.status == 0:
        why = last_words(home.logs / "server.log")
        detail = f"pid {said.pid} runs, its server does not answer" + (f". It said last: {why}" if why else "")
        yield Finding(Verdict.wrong, "mooring", detail, _log_command(home))
        return
    if said.status != http.client.OK:
        bad = ", ".join(each["name"] for each in said.unseen) or "it has just been started"
        yield Finding(Verdict.wrong, "mooring", f"not ready: {bad}", _log_command(home))
    else:
        yield Finding(Verdict.good, "mooring", f"runs, pid {said.pid}")
        yield from _unseen(home, said)
    yield from _problems(said.document)


def _at_rest(home: Home) -> Finding:
    """Of a start that failed the reason, which scrolled away or was nobody's to read.

    With its time: a start since then that failed before its roles began has told its reason on the terminal alone.
    """
    for role in ("server", "gateway"):
        if why := ended_for(home.logs / f"{role}.log"):
            return Finding(Verdict.wrong, "mooring", f"does not run; its {role} ended last at {why}", "make up")
    return Finding(Verdict.notice, "mooring", "does not run", "make up")


def _unseen(home: Home, said: Said) -> Iterator[Finding]:
    """What Mooring is ready without, and has lost sight of: an engine, a source of routes."""
    if said.unseen:
        detail = "; ".join(f"{each['name']} {_seen(each['age_s'])}" for each in said.unseen)
        yield Finding(Verdict.wrong, "stale", detail, _log_command(home))


def _seen(age_s: float | None) -> str:
    return "was never seen" if age_s is None else f"was last seen {age_s:.0f} s ago"


def _problems(document: dict[str, Any]) -> Iterator[Finding]:
    """What Mooring says is wrong; here too, since `mooring status` comes no further than a certificate that is over."""
    problems = document.get("problems", ())
    # Told twice, those of the module proxy would be without what to type once: see `doctor/modules.py`.
    others = [problem for problem in problems if not problem.startswith(SOURCE)]
    told = others[:_MOST_PROBLEMS]
    for problem in told:
        yield Finding(Verdict.wrong, "problem", problem)
    if left := document.get("problem_count", 0) - (len(problems) - len(others)) - len(told):
        what = f"{left} more of them" if told else f"problems with routes, their sources or modules: {left}"
        yield Finding(Verdict.wrong, "problem", what, "mooring status")


def _token(home: Home) -> str | None:
    """The administrator's, with which Mooring says what is wrong and not only that something is."""
    try:
        return read_secret(home.admin_token) or None
    except MooringError:
        return None


def _build(pid: int) -> Iterator[Finding]:
    """Whether the Mooring that runs is the one that the set-up installed last."""
    try:
        program = Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace"))
    except OSError:
        return
    runs, installed = program.parent.parent, (cache() / "venv").resolve()
    if runs.parent == installed.parent and runs != installed:
        detail = "another build is installed than the one that runs; it takes over with the same options and --replace"
        yield Finding(Verdict.notice, "build", detail, 'make up ARGS="--replace"')


def _log_command(home: Home) -> str:
    return f"tail {shlex.quote(str(home.logs))}/*.log"
