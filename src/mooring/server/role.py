"""What the supervisor starts: `python -m mooring.server.role server|gateway|goproxy --settings=FD --lifeline=FD …`.

Imports a role's parts only when it is that role: the gateway agent needs no database.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any

import structlog
import uvloop

from mooring.errors import MooringError, outcome
from mooring.server.lifetime import Lifetime
from mooring.server.logs import ROLE_ENDED, to_file
from mooring.settings import Installation, load

log = structlog.get_logger(__name__)


def main(arguments: list[str]) -> None:
    """Run one role until it should end."""
    role, *rest = arguments
    fds = {name.removeprefix("--"): int(fd) for name, fd in (item.split("=", 1) for item in rest)}
    for fd in fds.values():
        # What this process starts must not hold the supervisor's pipes open.
        os.set_inheritable(fd, False)  # noqa: FBT003 - the parameter is positional
    installation = load(_read(fds.pop("settings")))
    to_file(installation.home.logs / f"{role}.log")
    # Behind it what an earlier one ended for is over (`ended_for`).
    log.info("the role begins", role=role, pid=os.getpid())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(role, installation, fds))
    except MooringError as error:
        log.exception(ROLE_ENDED, role=role, error=error.detail)
        sys.stderr.write(f"mooring {role}: {error.detail}\n")
        sys.exit(outcome(error).exit)
    except Exception as error:
        # The supervisor starts it again: whoever looks at the terminal gets a line a try, the log has where it was.
        log.exception(ROLE_ENDED, role=role, error=str(error))
        sys.stderr.write(f"mooring {role}: {type(error).__name__}: {error} (more in {installation.home.logs})\n")
        sys.exit(outcome(MooringError("")).exit)


def _read(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read()


async def _run(role: str, installation: Installation, fds: dict[str, int]) -> None:
    lifetime = Lifetime(fds.get("lifeline"))
    lifetime.watch()
    await _role(role, installation, fds, lifetime)


def _role(role: str, installation: Installation, fds: dict[str, int], lifetime: Lifetime) -> Coroutine[Any, Any, None]:
    if role == "gateway":
        from mooring.server import gateway  # noqa: PLC0415 - only this role's parts are imported

        return gateway.run(installation, fds["listener"], lifetime, modules=fds.get("modules"))
    if role == "goproxy":
        from mooring.server import goproxy_role  # noqa: PLC0415

        return goproxy_role.run(installation, lifetime)
    from mooring.server import control_plane  # noqa: PLC0415

    return control_plane.run(installation, fds.get("ready"), lifetime)


if __name__ == "__main__":
    main(sys.argv[1:])
