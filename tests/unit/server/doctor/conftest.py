"""What every examination begins with."""

import os
import shutil
from pathlib import Path

import pytest

from mooring.server.files import make_folders
from mooring.settings import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home as the set-up makes it."""
    home = Home(tmp_path / "a home")
    home.root.mkdir(mode=0o700)
    make_folders(home)
    if os.geteuid() == 0:
        shutil.chown(home.root, "mooring", "mooring")
    return home
