"""The process runtime where other users' processes are hidden, as on hardened machines."""

import subprocess

from support.mooring import MOORING
from support.runtime_process import USER

_HIDDEN = f"""
mount -t proc -o hidepid=1 proc /proc
exec setpriv --reuid {USER} --regid {USER} --clear-groups "$@"
"""
_LOOK = """
import os
from mooring.workspaces.processes import procfs
assert procfs.process(1) is None
assert os.getpid() in procfs.processes()
assert procfs.tree(1) == set()
"""


def test_hidden_processes_are_nobodys() -> None:
    """Who looks through the table for a workspace's own skips those that it may not read, and ends by none of them."""
    words = ["unshare", "--mount", "sh", "-ec", _HIDDEN, "hidden", str(MOORING.parent / "python"), "-c", _LOOK]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
