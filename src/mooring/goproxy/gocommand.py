"""The go command, run where it can do no harm: nothing of our environment, no prompts, no hooks, limits of everything.

It makes the zips of private modules, since nobody else makes them right (https://go.dev/ref/mod#zip-files), and its
own module cache below `folder` holds one bare clone for each repository. What a repository contains is never run.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mooring.errors import Misconfigured, MooringError, NotFound, Unavailable
from mooring.goproxy import program, unreadable
from mooring.goproxy.clones import Clones
from mooring.goproxy.faults import NoSpace

_MAX_FILE = 4 * 2**30
_SSH = ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=15")
_MAX_TEXT = 8 * 2**10
_MAX_LINE = 1000
_CREDENTIALS = re.compile(r"://[^/\s]+@")
_UNPROVEN = re.compile(
    r"could not resolve host|no such host|timed out|i/o timeout|handshake timeout|connection (refused|reset)|"
    r"network is unreachable|authentication failed|could not read (username|password)|permission denied|"
    r"terminal prompts disabled|x509:|certificate (problem|verification failed)|verify certificate|"
    r"host key verification failed|internal server error|bad gateway|service unavailable|"
    r"returned error: (4(?!04|10)|5)\d\d|status code (4(?!04|10)|5)\d\d",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"unknown revision|no matching versions for query|404 not found|410 gone|"
    r"no go-import meta tags \(meta tags? |missing [^\s]*go\.mod|no commits|module path must match major version|"
    r"module declares its path as|go\.mod has (malformed|non-)|should be v|disallowed version string|"
    r"does not match|is not a valid",
    re.IGNORECASE,
)
_TOO_OLD = "GOTOOLCHAIN=local)"
_LEFT = (".zip", ".ziphash", ".tmp")
_NO_SPACE = re.compile(r"no space left|disk quota|file (size limit|too large)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files with which repositories are reached; none is copied anywhere, none is shown."""

    netrc: Path | None = None
    """Passwords and tokens by host, for https."""
    gitconfig: Path | None = None
    """`insteadOf` rules and the like; what could run a program is overruled."""
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    """Required with a key: an unknown host's key is never believed."""
    certificates: Path | None = None
    """A PEM bundle, where repositories have certificates of a company's own."""

    def absolute(self) -> "Credentials":
        """The same files by names that hold in any folder: the go command runs in one of its own."""
        files = (self.netrc, self.gitconfig, self.ssh_key, self.known_hosts, self.certificates)
        return Credentials(*(file and file.absolute() for file in files))


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one run."""

    within_s: float = 300.0
    """A clone of a large repository over a slow line takes minutes."""
    at_once: int = 4
    """More would only compete for the line and the disk."""
    file_bytes: int = _MAX_FILE
    """A pack larger than this is cut off."""
    clones_bytes: int = 20 * 2**30
    """Of all clones together: beyond it those go that were used longest ago, and come again when somebody asks."""


@dataclass(frozen=True, slots=True)
class GoCommand:
    """Runs `go` below `folder`."""

    go: Path
    folder: Path
    path: str
    """PATH, in which git is."""
    credentials: Credentials = field(default_factory=Credentials)
    limits: Limits = field(default_factory=Limits)

    @property
    def modcache(self) -> Path:
        return self.folder / "modcache"

    @property
    def home(self) -> Path:
        """One for each netrc, since git reads that of its home only.

        In one home a process that was given another netrc, or none, would take away that of all others.
        """
        if self.credentials.netrc is None:
            return self.folder / "home"
        return self.folder / f"home-{hashlib.sha256(os.fsencode(self.credentials.netrc)).hexdigest()[:16]}"

    @property
    def clones(self) -> Clones:
        """What is kept of repositories."""
        return Clones(self.modcache / "cache" / "vcs", self.folder / "lock")

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            Misconfigured: a file of the credentials cannot be read.
        """
        for place in (self.folder, self.home, self.folder / "work", self.modcache):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._link_netrc()
        # Else the first run of a day leaves a process behind it. A full disk is no reason not to serve.
        with contextlib.suppress(OSError):
            telemetry = self.home / "go" / "telemetry"
            telemetry.mkdir(parents=True, exist_ok=True)
            (telemetry / "mode").write_text("off")
        for name in ("netrc", "gitconfig", "ssh_key", "known_hosts", "certificates"):
            file = getattr(self.credentials, name)
            if file is not None and not os.access(file, os.R_OK):
                raise Misconfigured(f"{file} cannot be read", field=name)
        if self.credentials.ssh_key and not self.credentials.known_hosts:
            raise Misconfigured("an ssh key needs a file of known hosts", field="known_hosts")

    def environment(self) -> dict[str, str]:
        """All that the go command and git see."""
        found = {
            "PATH": f"{self.go.parent}:{self.path}" if self.go.is_absolute() else self.path,
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home),
            "LC_ALL": "C",
            "GOENV": "off",
            "GOFLAGS": "-modcacherw",
            "GOMODCACHE": str(self.modcache),
            "GOPATH": str(self.folder / "gopath"),
            "GOCACHE": str(self.folder / "gocache"),
            "GOPROXY": "direct",
            "GOSUMDB": "off",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOVCS": "*:git",
            "GIT_CONFIG_NOSYSTEM": "1",
            # Unlike `protocol.allow` among the settings it holds against a file that allows one protocol by its name.
            "GIT_ALLOW_PROTOCOL": "https:ssh",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": self._ssh(),
            **_git_settings(),
        }
        return found | self._files()

    def _files(self) -> dict[str, str]:
        found: dict[str, str] = {"GIT_CONFIG_GLOBAL": str(self.credentials.gitconfig or "/dev/null")}
        if self.credentials.netrc is not None:
            found["NETRC"] = str(self.credentials.netrc)
        if self.credentials.certificates is not None:
            found["SSL_CERT_FILE"] = found["GIT_SSL_CAINFO"] = str(self.credentials.certificates)
        return found

    def _ssh(self) -> str:
        settings = [*_SSH, f"UserKnownHostsFile={self.credentials.known_hosts or '/dev/null'}"]
        key = []
        if self.credentials.ssh_key is not None:
            key = ["-i", str(self.credentials.ssh_key)]
            settings.append("IdentitiesOnly=yes")
        options = ["-F", "/dev/null", *key, *(word for setting in settings for word in ("-o", setting))]
        return "ssh " + " ".join(_quoted(option) for option in options)

    def _link_netrc(self) -> None:
        link = self.home / ".netrc"
        if self.credentials.netrc is not None:
            with contextlib.suppress(FileExistsError):
                link.symlink_to(self.credentials.netrc)
        elif link.is_symlink():
            # An earlier version of this program had but one home.
            link.unlink(missing_ok=True)

    async def run(self, *arguments: str) -> bytes:
        """What `go ARGUMENTS` prints.

        Raises:
            NotFound: the go command proved that it is not there.
            Unreadable: the repository is not there, or not for us.
            Unavailable: anything else that went wrong.
        """
        asked = arguments[-1]
        async with self.holding() as held:
            ended = await self._run(str(self.go), *arguments, held=held)
            if ended.status == 0:
                return ended.output
            text = _complaint(ended.output, ended.errors)
            if repository := unreadable.unexplained(asked, text):
                ended = await self._run("git", "ls-remote", repository, "HEAD", held=held)
                text += _bounded(ended.errors.decode(errors="replace"))
        about_access = await asyncio.to_thread(unreadable.explained, asked, text, self.credentials.netrc)
        raise about_access or translated(asked, text)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[int]:
        """Nothing that runs make below `folder` is swept before the end of the block; what programs inherit for it.

        Raises:
            Unavailable: the folder cannot be written.
        """
        taken = asyncio.get_running_loop().run_in_executor(None, self.clones.hold)
        try:
            held = await asyncio.shield(taken)
        except asyncio.CancelledError:
            # The thread goes on, and what it gets would keep every sweep away as long as this process lives.
            taken.add_done_callback(_let_go)
            raise
        except OSError as error:
            raise Unavailable(f"the go command cannot be started: {error.strerror}") from error
        try:
            yield held
        finally:
            os.close(held)

    async def _run(self, *arguments: str, held: int) -> program.Ended:
        """How a program ended."""
        status, within_s = -1, self.limits.within_s
        try:
            ended = await program.run(
                ["prlimit", f"--fsize={self.limits.file_bytes}", "--core=0", "--", *arguments],
                environment=self.environment(),
                folder=self.folder / "work",
                within_s=within_s,
                # A run that outlives us holds the clones as well.
                files=(held,),
            )
            status = ended.status
        except TimeoutError as error:
            raise Unavailable(f"the repository did not answer within {within_s:g} s") from error
        except OSError as error:
            raise Unavailable(f"the go command cannot be started: {error.strerror}") from error
        finally:
            if status != 0:
                await asyncio.to_thread(self._drop_packs)
        return ended

    def sweep(self) -> None:
        """Remove what killed runs left, unless one is under way: zips, what was unpacked of them, locks. Blocking.

        Raises:
            OSError: something cannot be removed.
        """
        self.clones.sweep()
        # A walk takes long in a large store, and whoever starts a run waits for the end of `alone`.
        files = [*self.clones.locks(), *self._downloads()]
        folders = [folder for folder in self.modcache.glob("*") if folder.name != "cache"]
        if not files and not folders:
            return
        with self.clones.alone() as alone:
            if not alone:
                return
            for file in files:
                file.unlink(missing_ok=True)
            for folder in folders:
                self.clean(folder)

    def _downloads(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.modcache / "cache" / "download"):
            # The path of a module may end in these, too, and is a folder then.
            yield from (Path(folder, name) for name in names if name.endswith(_LEFT))

    def _drop_packs(self) -> None:
        """Packs that a run did not live to finish would fill the disk, try after try."""
        oldest = time.time() - self.limits.within_s
        for file in (self.modcache / "cache" / "vcs").glob("*/objects/pack/tmp_*"):
            with contextlib.suppress(FileNotFoundError):
                # Younger ones may belong to another run.
                if file.stat().st_mtime < oldest:
                    file.unlink()

    def clean(self, folder: Path) -> None:
        """Remove what the go command unpacked: only its clones are worth keeping. Blocking."""
        if folder.is_relative_to(self.modcache):
            shutil.rmtree(folder, ignore_errors=True)


def _let_go(held: asyncio.Future[int]) -> None:
    if not held.cancelled() and held.exception() is None:
        os.close(held.result())


def _git_settings() -> Mapping[str, str]:
    """Settings that go before every file's: what a repository or its configuration could make git run is off."""
    settings = {
        "core.hooksPath": "/dev/null",
        "core.fsmonitor": "false",
        "core.askPass": "",
        "credential.helper": "",
        "submodule.recurse": "false",
        "fetch.recurseSubmodules": "false",
        "gc.auto": "0",
        # A pack is there when all of it is. Loose objects of a fetch that was cut off would pass for a whole commit,
        # whose go.mod the go command then takes for missing and makes up.
        "fetch.unpackLimit": "1",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "60",
    }
    found = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = key
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _complaint(output: bytes, errors: bytes) -> str:
    """What is wrong; `-json` has it in a document."""
    try:
        said = str(json.loads(output)["Error"])
    except (ValueError, KeyError, TypeError):
        said = output.decode(errors="replace")
    return _bounded(errors.decode(errors="replace")) + _bounded(said)


def _bounded(text: str) -> str:
    """The beginning of `text`, without credentials: a server may say megabytes, which patterns would take hours for."""
    lines = _CREDENTIALS.sub("://", text)[:_MAX_TEXT].splitlines()
    return "".join(f"{line[:_MAX_LINE]}\n" for line in lines)


def translated(asked: str, text: str) -> MooringError:
    """What the go command complained about when it was asked for `asked`, as an error of ours, without credentials.

    No word of a server makes an absence or a full disk: the one would name a private path elsewhere.
    """
    text = _bounded(text)
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("go: downloading"))
    reason = unreadable.excerpt(lines).strip() or "the go command failed"
    if _TOO_OLD in text:
        # The developer's own is new enough, and its version is not the one that is named.
        reason = f"the module proxy's Go is too old for this module: {reason}"
    # A path may be made of such words.
    text = text.replace(asked, "").replace(asked.partition("@")[0], "")
    if _NO_SPACE.search(unreadable.of_this_machine(text)):
        return NoSpace(reason)
    if _ABSENT.search(unreadable.of_the_go_command(text)) and not _UNPROVEN.search(text):
        return NotFound(reason)
    return Unavailable(reason)
