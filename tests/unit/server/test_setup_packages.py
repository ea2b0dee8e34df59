"""The set-up without root: it installs nothing, and says what to ask for."""

import subprocess
from pathlib import Path

PACKAGES = Path(__file__).parents[3] / "tools/setup/packages.sh"


def test_an_ordinary_user_is_told_what_is_missing() -> None:
    """Without root and sudo the missing packages are named with the command that installs them; others are not."""
    # Through standard input: that user may not be able to read a checkout below root's home.
    say = 'set -euo pipefail; say() { printf "%s\\n" "$*" >&2; }'
    done = subprocess.run(
        ["bash", "-s"],
        input=f"{say}\n{PACKAGES.read_text()}\npackages coreutils no-such-package-here\n",
        capture_output=True,
        text=True,
        check=False,
        user="nobody",
        group="nogroup",
        extra_groups=[],
    )
    assert done.returncode == 3
    assert "sudo apt-get install no-such-package-here" in done.stderr
    assert "coreutils" not in done.stderr
