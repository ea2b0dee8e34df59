"""One Mooring for the browser's tests, with a template whose terminal can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import READABLE_TERMINAL
from support.mooring import Mooring, installation

_TEMPLATE = f"""
name = "readable"
version = 1
runtime = "process"

[editor]
command = ["{{editor}}", "--socket", "{{socket}}", "--auth", "none", "--disable-telemetry", "--disable-update-check",
  "--disable-proxy", "--user-data-dir", "{{data}}", "{{home}}"]

[editor.seed]
"{{data}}/User/settings.json" = '''{READABLE_TERMINAL}'''

[environment]
VSCODE_PROXY_URI = "{{port_url}}"
"""


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    """A running installation; its workspaces are made from the template `readable`."""
    with installation() as running:
        add_template(running.home)
        yield running


def add_template(home: Path) -> None:
    """Put the tests' template where a team puts its own."""
    folder = home / "templates"
    folder.mkdir(exist_ok=True)
    (folder / "readable.toml").write_text(_TEMPLATE)
