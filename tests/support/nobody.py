"""What another user than root finds where root was before."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def begun_by_root(name: str) -> Iterator[Path]:
    """A file's path in a folder of nobody's, in which root began to write it; until the end of the block as nobody."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, f".{name}.new").touch(mode=0o600)
        os.chown(folder, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
        try:
            yield Path(folder, name)
        finally:
            os.seteuid(0)
