"""Module proxies as processes of their own, which can be killed."""

import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.goupstream import go

_READY = re.compile(r"GOPROXY=(\S+)")
_WITHIN_S = 60.0


class Replica:
    """`mooring goproxy serve` on a free port; `options` before the command, those of `serve` behind it."""

    def __init__(
        self,
        store: Path,
        options: Sequence[str | Path],
        settings: Mapping[str, str] | None = None,
        *,
        serve: Sequence[str | Path] = (),
    ) -> None:
        program = Path(sys.executable).parent / "mooring"
        self._command = [program, "goproxy", "--store", store, "--go", go(), *options, "serve", "--port", "0", *serve]
        self._settings = settings
        # A pipe that nobody reads would hold the process up at its log.
        self._file = store.with_name(f"{store.name}-{secrets.token_hex(4)}.log")
        self.start()

    def start(self) -> None:
        """The first time or again, each time on another port."""
        begin = self._file.stat().st_size if self._file.exists() else 0
        with self._file.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._settings)
        deadline = time.monotonic() + _WITHIN_S
        while not (found := _READY.search(self.log[begin:])):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            threading.Event().wait(0.02)
        self.url = found[1]

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it printed."""
        return self._file.read_text()

    def kill(self) -> None:
        """As kill -9 does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """As an administrator does."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self.kill()
