"""A whole Mooring, as a user starts it: `mooring up` from the built wheel, its CLI, and its processes to kill."""

import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from mooring.settings import cache
from mooring.workspaces.templates import BUILTIN

MOORING = cache() / "venv/bin/mooring"
_READY = "Mooring is ready: "
_WITHIN_S = 120.0
# Above the last one that Chromium does not talk to (ERR_UNSAFE_PORT).
_LOWEST_PORT = 10_081
# The template that Mooring ships, with a terminal that is drawn as text in the page, where a test can read it.
_SHIPPED = (BUILTIN / "code-server.toml").read_text()
_SEED = "settings.json\" = '''\n{"
_READABLE = _SHIPPED.replace(_SEED, _SEED + '\n  "terminal.integrated.gpuAcceleration": "off",')
assert _READABLE != _SHIPPED
_LIGHT = """
version = 1
runtime = "process"
[editor]
command = ["/usr/bin/python3", "-I", "-S", "{program}", "{socket}"]
[idle]
after_s = 0
"""


def free_port() -> int:
    """A port that nothing listens on now.

    None of those that the kernel gives to connections, where there are others: until its server listens, and while that
    is away for a test's sake, any client on this machine could get one of them.
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    everywhere = range(_LOWEST_PORT, 2**16)
    found = [port for port in everywhere if not first <= port <= last] or list(everywhere)
    random.shuffle(found)
    for port in found:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port is in use")


@dataclass
class Mooring:
    """One installation below a home of its own. `options` go to `mooring up`; `user` is who types, else root."""

    home: Path
    port: int
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    program: Path = MOORING
    url: str = ""
    output: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait for its ready line; its signed-in link is then in `url`."""
        # Each start's own: the end of a killed one's output, heard late, would pass for this one's ready line.
        self.url, ready = "", threading.Event()
        self._process = subprocess.Popen(
            [str(self.program), "up", "--port", str(self.port), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(),
            **self._identity(),
        )
        threading.Thread(target=self._read, args=(self._process, ready), daemon=True).start()
        if not ready.wait(_WITHIN_S) or not self.url:
            self.stop()
            raise AssertionError("mooring up did not become ready:\n" + "\n".join(self.output) + self.logs())

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip())
                if line.startswith(_READY):
                    self.url = line.removeprefix(_READY).strip()
                    ready.set()
        ready.set()

    def environment(self) -> dict[str, str]:
        """What its commands run with."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "MOORING_CACHE") if name in os.environ}  # noqa: TID251
        own = {"HOME": str(self.home.parent), "MOORING_HOME": str(self.home), "NO_COLOR": "1"}
        return {**kept, **self.variables, **own}

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        """The administrator's."""
        return (self.home / "admin-token").read_text().strip()

    def logs(self) -> str:
        """The last lines of every log, for a failure's message."""
        paths = sorted((self.home / "log").glob("*.log")) + sorted((self.home / "gateway").rglob("*.log"))
        ends = {path.name: path.read_text(errors="replace").splitlines()[-30:] for path in paths}
        return "\n".join(f"--- {name}\n" + "\n".join(lines) for name, lines in ends.items())

    def cli(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `mooring ARGUMENTS` as the person on this machine."""
        done = subprocess.run(
            [str(MOORING), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_WITHIN_S,
            env=self.environment(),
            **self._identity(),
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"mooring {arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}{self.logs()}"
            )
        return done

    def _identity(self) -> dict[str, Any]:
        return {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}

    def json(self, *arguments: str) -> object:
        """The same with `-o json`, read."""
        return json.loads(self.cli(*arguments, "-o", "json").stdout)

    def status(self, host: str, path: str = "/healthz") -> int:
        """What the public listener answers to the administrator; 0 when nothing answers."""
        headers = {"Host": host, "Authorization": f"Bearer {self.token}"}
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=5).status_code
        except httpx2.TransportError:
            return 0

    def answers(self, name: str) -> bool:
        """Whether the editor of the administrator's workspace answers at its URL."""
        return self.status(f"{name}--admin.localhost") == 200

    def ask(self, method: str, path: str) -> httpx2.Response:
        """A call of the API by the administrator."""
        headers = {"Host": "localhost", "Authorization": f"Bearer {self.token}"}
        return httpx2.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30)

    def processes(self, *words: str) -> list[int]:
        """The processes of this installation whose command line has all the words."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            command, around = _told(int(entry.name))
            # One that has ended has no folder that it is in.
            if around and all(word in command for word in words) and self._is_ours(int(entry.name), command + around):
                found.append(int(entry.name))
        return found

    def _is_ours(self, pid: int, text: str) -> bool:
        # Workers of an nginx whose agent was killed say nothing of the home; their master does.
        while pid > 1 and pid != self.pid:
            if str(self.home) in text:
                return True
            pid = _parent(pid)
            text = "".join(_told(pid))
        return pid == self.pid

    def add_light_template(self) -> None:
        """A template `light` whose editor is a few lines of Python, at a place that the workspaces can read."""
        program = self.home.parent / "light_editor.py"
        program.write_text((Path(__file__).parent / "light_editor.py").read_text())
        program.chmod(0o644)
        self.add_template("light", _LIGHT.replace("{program}", str(program)))

    def add_hostile_template(self) -> None:
        """A template `hostile` whose editor is support/hostile_editor.py."""
        program = self.home.parent / "hostile_editor.py"
        program.write_text((Path(__file__).parent / "hostile_editor.py").read_text())
        program.chmod(0o644)
        self.add_template("hostile", _LIGHT.replace("{program}", str(program)))

    def add_readable_template(self) -> None:
        """A template `readable`: code-server with a terminal that can be read in the page."""
        self.add_template("readable", _READABLE)

    def add_template(self, name: str, text: str) -> None:
        """Put a template where a team puts its own."""
        folder = self.home / "templates"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(text)

    def runs(self) -> bool:
        """Whether its supervisor does."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(60)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """Kill the supervisor with a signal it cannot see."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_all(self, *others: int) -> None:
        """Kill every process of it, and these, at once, and wait for their ends: a dying nginx still has the port."""
        while pids := [*others, *self.processes()]:
            _kill(pids)
            others = ()
        if self._process is not None:
            self._process.wait()


def _told(pid: int) -> tuple[str, str]:
    """The command line of a process, and its environment with the folder that it is in; "" for one that is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return command, (folder / "environ").read_bytes().decode(errors="replace") + str((folder / "cwd").readlink())
    except OSError:
        return "", ""


def _parent(pid: int) -> int:
    """The parent of a process; 0 of one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _kill(pids: list[int]) -> None:
    """Kill them, each before the first has ended."""
    with ExitStack() as stack:
        ends = []
        for pid in pids:
            with suppress(ProcessLookupError):
                ends.append(os.pidfd_open(pid))
                stack.callback(os.close, ends[-1])
        for end in ends:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
        for end in ends:
            assert select.select([end], [], [], _WITHIN_S)[0], "a killed process does not end"


@contextmanager
def installation(*options: str, program: Path = MOORING, **variables: str) -> Iterator[Mooring]:
    """A home in a short folder (sockets have short names), gone afterwards with every process of it."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="mrg-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        mooring = Mooring(folder / "home", free_port(), options, variables, program=program)
        # A test that killed the supervisor leaves workspaces, as it should; and a stop that takes too long all of it.
        stack.callback(mooring.kill_all)
        stack.callback(mooring.stop)
        mooring.start()
        yield mooring
