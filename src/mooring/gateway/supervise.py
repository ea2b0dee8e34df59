"""nginx as a process: started or adopted, and started again when it dies."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import structlog

from mooring.control.backoff import Backoff
from mooring.errors import Misconfigured, MooringError, Unavailable
from mooring.gateway.admin import Admin
from mooring.gateway.authority import LocalAuthority
from mooring.gateway.config import NginxSettings, fingerprint, render
from mooring.gateway.leftover import Record, end, master, orphans, read_record, write_record
from mooring.gateway.processes import Process, process
from mooring.settings import environment

log = structlog.get_logger(__name__)

READY_S = 10.0
"""Until nginx must answer; it takes some 30 ms."""
ENDED_S = 1.0
"""For the news of a process's end, which comes by another way than the silence of its socket."""
STOP_S = 5.0
"""For requests in flight when it is told to end."""
STEADY_S = 10.0
"""After so long alive a death is a new incident, and not the next of a series."""
_FAILED = "nginx does not start"


class Nginx:
    """One nginx on `listeners`: a socket for each of `settings.listeners`, and for `settings.modules_port`.

    The agent keeps the sockets open for the next nginx: workers that a killed master leaves hold the port, and a new
    master could not bind it. nginx runs in a process group of its own, and goes on when the agent is killed; the next
    agent adopts it if it would start the very same.
    """

    def __init__(self, settings: NginxSettings, listeners: Sequence[socket.socket]) -> None:
        self.settings = settings
        self.restarts = 0
        """How often the master was replaced after it died."""
        self._listeners = tuple(listeners)
        self._master: Process | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._backoff = Backoff(first=0.02, most=5.0)
        self._stopping = False
        self._refused: str | None = None
        for listener in self._listeners:
            # nginx takes an inherited socket as it is: a blocking one would hang a worker in accept.
            listener.settimeout(0)

    @property
    def pid(self) -> int | None:
        """The master's process id."""
        return self._master.pid if self._master else None

    def problems(self) -> tuple[str, ...]:
        """Why the one that died has no successor yet; a line for a person, or none."""
        return () if self._refused is None else (f"{_FAILED}: {self._refused}",)

    async def start(self) -> None:
        """Adopt the nginx that runs, or start one; returns once it answers.

        Raises:
            Misconfigured: nginx refuses its configuration; says what it printed.
            Unavailable: it did not answer in time.
        """
        if await self._adopted():
            log.info("adopted a running nginx", pid=self.pid)
            return
        await self._launch()

    async def run(self) -> None:
        """Keep it running, for ever; after `start`."""
        attempt = 0
        clock = asyncio.get_running_loop().time
        while True:
            since = clock()
            await self._ended()
            if self._stopping:
                return
            attempt = 0 if clock() - since > STEADY_S else attempt + 1
            self.restarts += 1
            log.error("nginx died", pid=self.pid, restarts=self.restarts)
            await self._again(attempt)

    async def stop(self) -> None:
        """End it; what is still open is cut."""
        self._stopping = True
        if self._master is not None and process(self._master.pid) == self._master:
            os.kill(self._master.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await self._ended()
            except TimeoutError:
                log.warning("nginx did not end in time and is killed", pid=self.pid)
        await self._clear()
        await self._reap()

    async def _again(self, attempt: int) -> None:
        while True:
            try:
                await self._launch()
            except (MooringError, OSError) as error:
                # A disk that is full or read-only, no process or descriptor left: it may be better a moment later.
                self._refused = " ".join(str(error).removeprefix(f"{_FAILED}: ").split())
                log.error(_FAILED, reason=self._refused)  # noqa: TRY400 - the text says it all
            except Exception as error:
                # Nobody else would ever start it again.
                self._refused = f"{type(error).__name__}: {error}"
                log.exception(_FAILED)
            else:
                self._refused = None
                return
            attempt += 1
            await asyncio.sleep(self._backoff.delay(attempt))

    async def _adopted(self) -> bool:
        record, running = read_record(self.settings.home), master(self.settings.home)
        if record is None or running is None or record.fingerprint != fingerprint(self.settings):
            return False
        self._master = running
        try:
            await self._answers(2.0)
        except Unavailable:
            self._master = None
            return False
        return True

    async def _launch(self) -> None:
        await self._clear()
        await self._reap()
        self._prepare()
        self._child = await self._spawn()
        started = process(self._child.pid)
        if started is None:
            raise Misconfigured(f"{_FAILED}: {await self._complaint()}")
        self._master = started
        self._note(started)
        try:
            await self._answers(READY_S)
        except Unavailable:
            if not await self._has_ended(self._child):
                raise
            raise Misconfigured(f"{_FAILED}: {await self._complaint()}") from None

    def _note(self, started: Process) -> None:
        try:
            write_record(self.settings.home, Record(started.pid, started.started, fingerprint(self.settings)))
        except OSError:
            # A full disk: without a record no agent adopts it. Its workers are of its group, and would hold the port
            # without it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            raise

    async def _has_ended(self, child: asyncio.subprocess.Process) -> bool:
        """Whether the process has ended, also when the loop has not been told of it yet."""
        try:
            async with asyncio.timeout(ENDED_S):
                await child.wait()
        except TimeoutError:
            return False
        return True

    def _prepare(self) -> None:
        folder = self.settings.folder
        for made in (self.settings.home.run, folder, folder / "tmp"):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "nginx.conf").write_text(render(self.settings))
        if any(listener.tls for listener in self.settings.listeners):
            LocalAuthority(folder / "placeholder", "placeholder.invalid").pem()
        (folder / "startup.log").write_bytes(b"")
        # A killed nginx leaves its sockets' names, which the next one could not bind.
        self.settings.home.gateway_socket.unlink(missing_ok=True)
        if self.settings.modules_socket is not None:
            self.settings.modules_socket.unlink(missing_ok=True)

    async def _spawn(self) -> asyncio.subprocess.Process:
        fds = [listener.fileno() for listener in self._listeners]
        folder = self.settings.folder
        with (folder / "startup.log").open("wb") as output:
            return await asyncio.create_subprocess_exec(
                self.settings.binary,
                *("-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"),
                # By it an nginx is found that nobody lived to record.
                cwd=folder,
                env=environment() | {"NGINX": "".join(f"{fd};" for fd in fds)},
                pass_fds=fds,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _answers(self, within_s: float) -> None:
        """Wait until the administration answers.

        Raises:
            Unavailable: when it does not in time, or nginx has ended.
        """
        admin = Admin(self.settings.home.gateway_socket)
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        await admin.ask({"op": "applied"})
                    except Unavailable:
                        if self._master is None or process(self._master.pid) != self._master:
                            raise
                        await asyncio.sleep(0.01)
                    else:
                        return
        except TimeoutError as error:
            raise Unavailable(f"nginx did not answer within {within_s:.0f} s") from error
        finally:
            await admin.close()

    async def _ended(self) -> None:
        """Wait for the master's end; it may be nobody's child any more."""
        if self._master is None:
            return
        try:
            fd = os.pidfd_open(self._master.pid)
        except OSError:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(fd, gone.set)
        try:
            if process(self._master.pid) == self._master:
                await gone.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    async def _clear(self) -> None:
        """Kill what is left of this home's nginx: workers without a master serve a table that nobody renews."""
        async with asyncio.timeout(STOP_S):
            while left := await asyncio.to_thread(orphans, self.settings.home):
                for each in left:
                    end(each)
                await asyncio.sleep(0.01)

    async def _reap(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            await child.wait()

    async def _complaint(self) -> str:
        def read(path: Path) -> str:
            return path.read_text(errors="replace")[-600:].strip() if path.exists() else ""

        folder = self.settings.folder
        return await asyncio.to_thread(lambda: read(folder / "startup.log") or read(folder / "error.log"))
