"""The module proxy."""

import http.client
import shlex
import shutil
from collections.abc import Iterator

from mooring.errors import MooringError
from mooring.server.doctor.asking import ask
from mooring.server.doctor.findings import Finding, Verdict
from mooring.server.doctor.running import Said
from mooring.server.modules_health import STARTING
from mooring.settings import Home, cache, go_command


def examine_modules(home: Home, said: Said | None) -> Iterator[Finding]:
    """Whether the module proxy can be as its settings want it, and is well. `said`: see `hear`."""
    from mooring.goproxy import team  # noqa: PLC0415 - its libraries are for this check alone

    try:
        wanted = team.read(home.modules_settings)
    except MooringError as error:
        remedy = f"${{EDITOR:-nano}} {shlex.quote(str(home.modules_settings))}"
        yield Finding(Verdict.wrong, "modules", error.detail, remedy)
        return
    if not wanted.enabled:
        yield Finding(Verdict.notice, "modules", f"the module proxy is switched off in {home.modules_settings}")
    elif shutil.which(go_command(cache() / "go")) is None:
        yield Finding(Verdict.missing, "modules", "no go command, which the module proxy needs", "make up")
    elif said is not None:
        yield _serving(home, starting=said.modules_start)


def _serving(home: Home, *, starting: bool) -> Finding:
    status, body = ask(home.modules_socket, "goproxy", "/-/healthz")
    if status == http.client.OK:
        return Finding(Verdict.good, "modules", "the module proxy serves /goproxy/ of the console's address")
    detail = body.strip() or "the module proxy does not answer"
    if starting and (status == 0 or detail == STARTING):
        return Finding(Verdict.notice, "modules", STARTING)
    return Finding(Verdict.wrong, "modules", detail, f"tail {shlex.quote(str(home.logs / 'goproxy.log'))}")
