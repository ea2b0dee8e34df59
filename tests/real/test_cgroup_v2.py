"""The process runtime on a real cgroup v2, also where the machine's controllers are v1's."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_a_workspace_lives_in_its_cgroup_and_ends_with_it() -> None:
    """Delegated, entered, counted, listed with what was made below it, killed at once, and removed."""
    words = ["unshare", "--mount", sys.executable, "-m", "support.cgroup_v2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, cwd=TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
