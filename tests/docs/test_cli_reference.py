"""The command line's reference says what the command line does."""

import subprocess
import sys
from pathlib import Path

from mooring.errors import OUTCOMES

ROOT = Path(__file__).parent.parent.parent


def test_every_command_and_option_is_listed() -> None:
    """The generated part of the page is what the command line would write now."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools/cli_reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_exit_status_is_listed() -> None:
    """Every status that an error can end with has a row."""
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert all(f"\n| {row.exit} | " in page for row in OUTCOMES.values())
