"""What the gateway may decide without us: a file that says who may have what, for `gateway/lua/module_policy.lua`.

It holds only what that code can decide with certainty. Rules about versions and refusals are marked or left out, and
what they concern is asked of us. A further gate must either be in here or keep this file from being written.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from mooring.control.tasks import Tasks
from mooring.goproxy.config import Config
from mooring.goproxy.policy import Filter, Rule
from mooring.goproxy.stamps import Stamp

log = structlog.get_logger(__name__)

FORMAT = 1
"""The gateway leaves everything to us when it finds another one."""
_LOOK_S = 0.5


def document(config: Config, rules: list[Rule], stamp: Stamp | None) -> bytes:
    """The file. `stamp` is that of the filter file when `rules` were read: once it differs they count no more."""
    return json.dumps(
        {
            "format": FORMAT,
            "store": str(config.root / "cache/download"),
            "tokens": config.tokens and str(config.tokens),
            "private": config.private,
            "filter": config.filter and {"file": str(config.filter), "stamp": stamp and _text(stamp)},
            "rules": [
                {"mark": rule.mark.value, "pattern": rule.pattern, "versions": bool(rule.versions)} for rule in rules
            ],
            "list_s": config.lifetimes.mutable_s,
        }
    ).encode()


def _text(stamp: Stamp) -> str:
    inode, changed_ns, size = stamp
    return f"{inode} {changed_ns // 10**9} {changed_ns % 10**9} {size}"


@asynccontextmanager
async def cleared(file: Path, config: Config, rules: Filter) -> AsyncIterator[None]:
    """Until the end of the block the gateway may serve what these settings allow; a kill leaves that as it was."""
    if config.s3 is not None:
        # The gateway sees no file of a bucket.
        _withdraw(file)
        yield
        return
    async with Tasks("clearance") as tasks:
        try:
            tasks.forever("clearance", _keep(file, config, rules, _write(file, config, rules)))
            yield
        finally:
            await tasks.stop()
            # On a disk that became read-only it stays as after a kill; its error would keep the rest from ending.
            with suppress(OSError):
                _withdraw(file)


Written = tuple[list[Rule], Stamp | None]


async def _keep(file: Path, config: Config, rules: Filter, written: Written | None) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        # A disk that was full takes it some time later; and what cleans up old files may have taken it.
        if rules.now() != written or not os.access(file, os.F_OK):
            try:
                written = _write(file, config, rules, quiet=written is None)
            except OSError:
                # It stays, and the gateway sees by its stamp that the rules are other ones by now.
                written = None


def _write(file: Path, config: Config, rules: Filter, *, quiet: bool = False) -> Written | None:
    """What the file says now; None: the disk does not take it.

    Raises:
        OSError: nor does it let go of what is there, being read-only.
    """
    # One role at a time writes here, and what a killed one left goes by the same name.
    temporary = file.with_name(f".{file.name}.new")
    now = rules.now()
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as new:
            new.write(document(config, *now))
        temporary.replace(file)
    except OSError as error:
        if not quiet:
            log.warning("hits are served by this process", file=str(file), error=error.strerror)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # What is there may be out of date; without it every request is ours.
        _withdraw(file)
        return None
    return now


def _withdraw(file: Path) -> None:
    file.unlink(missing_ok=True)
