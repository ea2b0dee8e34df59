"""The home: whether Mooring can work there, and what the team keeps in it."""

import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mooring.errors import MooringError
from mooring.server.doctor.findings import Finding, Verdict
from mooring.server.embedded import refused
from mooring.server.supervisor import account
from mooring.settings import Home
from mooring.workspaces.templates import BadTemplate, parse

_LITTLE_DISK = 2 * 2**30


def examine_home(home: Home) -> Iterator[Finding]:
    """Whether Mooring can keep its state there, and nobody else reads it."""
    if not home.root.exists():
        yield Finding(Verdict.notice, "home", f"{home.root} is made at the first start", "make up")
        return
    if (unusable := _unusable(home)) is not None:
        yield unusable
        return
    # Of any other folder this advice would be the end: of /etc, of somebody's own.
    if home.root.stat().st_mode & 0o077 and (home.root / "lock").exists():
        yield Finding(
            Verdict.wrong, "home", f"{home.root} is open to other users", f"chmod 700 {shlex.quote(str(home.root))}"
        )
    free = shutil.disk_usage(home.root).free
    if free < _LITTLE_DISK:
        yield Finding(
            Verdict.wrong,
            "disk",
            f"{free // 2**20} MiB free below {home.root}",
            f"du -xh {shlex.quote(str(home.root))} | sort -h | tail",
        )
    else:
        yield Finding(Verdict.good, "home", f"{home.root}, {free // 2**30} GiB free")


def _unusable(home: Home) -> Finding | None:
    if not home.root.is_dir():
        return Finding(Verdict.wrong, "home", f"{home.root} is no folder: name one with --home or MOORING_HOME")
    if _is_read_only(home.root):
        return Finding(Verdict.wrong, "home", f"{home.root} is on a file system that is read-only now; dmesg says why")
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        if home.root.stat().st_uid != os.geteuid():
            # Given to whoever asks, a Mooring of the machine's would not start any more.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(home.root))
        remedy = f"sudo chown -R $USER {shlex.quote(str(home.root))}"
        return Finding(Verdict.wrong, "home", f"{home.root} cannot be written by you", remedy)
    # One that was begun may be another user's than who asks has in mind; root's is nobody's.
    begun = (home.root / "lock").exists() and home.root.stat().st_uid != 0
    if not begun and (why := _refused(home)) is not None:
        return Finding(Verdict.wrong, "home", why)
    return None


def _refused(home: Home) -> str | None:
    """Why `mooring up` would begin no Mooring in this folder."""
    try:
        return refused(home.root, account(None))
    except MooringError as error:
        return error.detail


def _is_read_only(folder: Path) -> bool:
    """Tried, since a file system that the kernel stopped writing to may still be mounted as a writable one."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return False
    except OSError as error:
        return error.errno == errno.EROFS


def examine_templates(home: Home) -> Iterator[Finding]:
    """Whether the team's templates can be used."""
    for path in sorted(home.templates.glob("*.toml")):
        try:
            parse(path.read_text(encoding="utf-8"), path.name)
        except BadTemplate as error:
            more = f", and {len(error.mistakes) - 1} more" if len(error.mistakes) > 1 else ""
            yield Finding(Verdict.wrong, "template", f"{error.mistakes[0]}{more}", f"nano {shlex.quote(str(path))}")
        except (OSError, UnicodeError) as error:
            yield Finding(Verdict.wrong, "template", f"{path}: {getattr(error, 'strerror', None) or 'must be UTF-8'}")
