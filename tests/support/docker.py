"""A real Docker engine of the tests' own: Debian's dockerd, apart from any that runs on this machine.

Started once a session, when first asked for, and ended with it: mounts, bridges and firewall rules go too. Its images
are kept in the set-up's cache, so that only the first session builds them.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from mooring.settings import cache
from mooring.workspaces.docker.network import IMAGE, POOL
from support import house, reaper

CHECKOUT = Path(__file__).parents[2]
LIGHT_IMAGE = "localhost/mooring-light:latest"
LIGHT_TEMPLATE = f"""
version = 1
runtime = "docker"
image = "{LIGHT_IMAGE}"
[editor]
command = ["python3", "/light_editor.py", "{{port}}"]
listen = "port"
[idle]
after_s = 0
"""
"""Containers of the light editor, which nobody stops for being idle."""
WORKSPACE_IMAGE = IMAGE
_BASE = "debian:bookworm-slim"
_BRIDGE = "mtestdocker0"
_BRIDGE_ADDRESS = "10.212.77.1/24"
_WITHIN_S = 60.0
_LOCK_WITHIN_S = 1800.0
_SOURCES = (Path(__file__).parent / "light_image/Dockerfile", Path(__file__).parent / "light_editor.py")


@dataclass
class Dockerd:
    """One engine. `folder` keeps its data between sessions; sockets and the like are in `run`."""

    folder: Path
    run: Path
    _process: subprocess.Popen[bytes] | None = None
    _log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.run / "dockerd.log"

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"

    @property
    def host(self) -> str:
        """Its address, as DOCKER_HOST says it."""
        return f"unix://{self.socket}"

    @property
    def reaper(self) -> int:
        """The process that everything of the engine is below."""
        assert self._process is not None
        return self._process.pid

    @property
    def pid(self) -> int:
        """The engine's own process."""
        return int((self.run / "dockerd.pid").read_text())

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped or killed since."""
        return self._process is not None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["/usr/sbin/dockerd", "--host", self.host, "--data-root", str(self.folder / "data")]
        command += ["--exec-root", str(self.run / "exec"), "--pidfile", str(self.run / "dockerd.pid")]
        command += ["--bridge", _BRIDGE, "--log-level", "warn"]
        (self.run / "dockerd.pid").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            # A terminal's Ctrl-C would end it before the session has cleared it.
            self._process = subprocess.Popen(
                [sys.executable, reaper.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        house.lasting.add(self._process.pid)
        deadline = time.monotonic() + _WITHIN_S
        while subprocess.run(self._cli("version"), capture_output=True, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("dockerd does not answer:\n" + self._log.read_text()[-4000:])
            time.sleep(0.05)  # noqa: TID251 - no event loop here
        # Started by root, Mooring is the user mooring.
        self.run.chmod(0o711)
        with suppress(LookupError):
            shutil.chown(self.socket, group="mooring")

    def stop(self) -> None:
        """End it and everything that it started."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(_WITHIN_S)
            self._process = None

    def kill(self) -> None:
        """Kill it, with all its containers, as a crash of the machine would."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(_WITHIN_S)
        self.stop()

    def cli(self, *arguments: str) -> str:
        """What the docker command answers."""
        done = subprocess.run(self._cli(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def build(self) -> None:
        """Build the light image, unless it is there as its sources say."""
        digest = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:16]
        name = LIGHT_IMAGE.replace(":latest", f":{digest}")
        if not self.cli("images", "-q", name):
            self._make("images/base", _BASE)
            with tempfile.TemporaryDirectory() as context:
                for source in _SOURCES:
                    (Path(context) / source.name).write_bytes(source.read_bytes())
                self.cli("build", "-q", "--build-arg", f"BASE={_BASE}", "-t", name, context)
        self.cli("tag", name, LIGHT_IMAGE)

    def build_workspace_image(self) -> None:
        """What `make images` builds."""
        self._make("images/workspace/build")

    def clear(self) -> None:
        """Remove every container, network and volume: an earlier session may have been killed."""
        # Asked of the engine itself: its command takes a twentieth of a second each time, and this is after each test.
        transport = httpx2.HTTPTransport(uds=str(self.socket))
        with httpx2.Client(transport=transport, base_url="http://docker", timeout=_WITHIN_S) as engine:
            for kind, which in (
                ("containers", "/json?all=true"),
                ("networks", '?filters={"type":["custom"]}'),
                ("volumes", ""),
            ):
                deadline = time.monotonic() + _WITHIN_S
                while found := _named(engine.get(f"/{kind}{which}").raise_for_status().json()):
                    # One that Mooring itself is just removing is refused.
                    answers = [engine.delete(f"/{kind}/{name}?force=true") for name in found]
                    refused = [answer.text for answer in answers if not answer.is_success]
                    assert not refused or time.monotonic() < deadline, refused

    def _make(self, script: str, *arguments: str) -> None:
        environment = {**os.environ, "DOCKER_HOST": self.host}  # noqa: TID251 - the build needs the PATH and the cache
        subprocess.run(["nice", str(CHECKOUT / script), *arguments], check=True, env=environment, cwd=CHECKOUT)

    def _cli(self, *arguments: str) -> list[str]:
        return ["docker", "--host", self.host, *arguments]


def _named(listed: Any) -> list[str]:  # noqa: ANN401 - what the engine answers
    """The ids of containers or networks, the names of volumes."""
    items = (listed["Volumes"] or []) if isinstance(listed, dict) else listed
    return [item.get("Id") or item["Name"] for item in items]


_shared: list[Dockerd] = []


def shared() -> Dockerd:
    """The session's engine, with the light image."""
    if not _shared:
        stack = ExitStack()
        try:
            dockerd = stack.enter_context(_engine())
        except BaseException:
            stack.close()
            raise
        house.at_end(stack.close)
        house.open_network(POOL)
        _shared.append(dockerd)
    return _shared[0]


@contextmanager
def _engine() -> Iterator[Dockerd]:
    folder = cache() / "test-docker"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock"), _firewall(), _bridge(), tempfile.TemporaryDirectory(prefix="mrgdocker") as run:
        dockerd = Dockerd(folder, Path(run))
        # An earlier session may have been killed: what its containers had mounted could not be removed.
        _unmount(folder)
        try:
            dockerd.start()
            dockerd.clear()
            dockerd.build()
            yield dockerd
            dockerd.clear()
        finally:
            dockerd.stop()
            _unmount(folder, Path(run))


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two engines over one data folder would destroy it."""
    with lock.open("w") as file:
        deadline = time.monotonic() + _LOCK_WITHIN_S
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            assert time.monotonic() < deadline, "another test session has used the engine for half an hour"
            time.sleep(0.5)  # noqa: TID251 - no event loop here
        yield


@contextmanager
def _firewall() -> Iterator[None]:
    """Leave the packet filter and forwarding as they were."""
    forwarding = [Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/ipv6/conf/all/forwarding")]
    before = {path: path.read_text() for path in forwarding}
    saved = {tool: _output(f"{tool}-save") for tool in ("iptables", "ip6tables")}
    had = "inet mooring" in _output("nft", "list", "tables")
    try:
        yield
    finally:
        for tool, rules in saved.items():
            subprocess.run([f"{tool}-restore"], input=_emptied(_output(f"{tool}-save")) + rules, text=True, check=True)
        if not had:
            subprocess.run(["nft", "delete", "table", "inet", "mooring"], check=False, capture_output=True)
        for path, text in before.items():
            path.write_text(text)


def _emptied(saved: str) -> str:
    """Rules that empty every table in `saved`: a table that was not there before is not in what is restored."""
    keep = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
    lines = []
    for line in saved.splitlines():
        if line.startswith("*") or line == "COMMIT":
            lines.append(line)
        elif line.startswith(":") and line[1:].split()[0] in keep:
            lines.append(f"{line.split()[0]} ACCEPT [0:0]")
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def _bridge() -> Iterator[None]:
    """A default bridge of our own: a system's engine has docker0."""
    subprocess.run(["ip", "link", "delete", _BRIDGE], check=False, capture_output=True)
    subprocess.run(["ip", "link", "add", _BRIDGE, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", _BRIDGE_ADDRESS, "dev", _BRIDGE], check=True)
        subprocess.run(["ip", "link", "set", _BRIDGE, "up"], check=True)
        yield
    finally:
        for link in _output("ip", "-o", "link", "show", "type", "bridge").splitlines():
            name = link.split(":")[1].strip()
            if name == _BRIDGE or name.startswith("mrg"):
                subprocess.run(["ip", "link", "delete", name], check=True)


def _unmount(*folders: Path) -> None:
    """What a killed engine left mounted."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if any(Path(point).is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "-l", point], check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
