"""Work on a module store beside serving it: filling it ahead, and carrying it into a closed network and out of one."""

import asyncio
import errno
import io
import lzma
import os
import pwd
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mooring.control.tasks import Tasks
from mooring.errors import InvalidInput, MooringError, NotFound, Unavailable
from mooring.goproxy import access, program
from mooring.goproxy.config import Config
from mooring.goproxy.faults import FULL, NoSpace
from mooring.goproxy.folder import Folder
from mooring.goproxy.leftovers import swept, workplace
from mooring.goproxy.names import Ask, Kind, ask, matches_any, parse
from mooring.goproxy.ports import Blob, FullStore
from mooring.goproxy.service import Proxy
from mooring.server.goproxy import build, serving
from mooring.server.replacing import replacing
from mooring.settings import environment

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_AT_ONCE = 16
_GRAPH_WITHIN_S = 1800.0
_DOWNLOAD = "cache/download/"
_SUMDB = "sumdb/"
_FORMAT = "{{with .Replace}}{{.Path}} {{.Version}}{{else}}{{.Path}} {{.Version}}{{end}}"


@dataclass(frozen=True, slots=True)
class Step:
    """One file that was dealt with; `problem` is empty when it is there now."""

    done: int
    total: int
    label: str
    problem: str = ""


async def warm(config: Config, files: list[Path]) -> AsyncIterator[Step]:
    """Fetch everything that builds of these go.mod files need.

    Raises:
        InvalidInput: the go command cannot make a module graph of one of them.
        NoSpace: the store's disk is full.
        Unavailable: the go command did not make one in half an hour, or the store's folder takes nothing.
    """
    # Before the folder is made: what a killed job left may be all that the disk has no room for.
    await swept(config.root)
    with workplace(config.root) as folder:
        # Whoever is on this machine reaches the port: private modules are for the go command of this run alone.
        # In a folder of their own: who makes one locks theirs, and this one is locked for as long as the job runs.
        tokens = folder / "access/tokens"
        token = access.make(tokens, "warm", ("*",))
        async with serving(replace(config, tokens=tokens), "127.0.0.1", 0) as served:
            wanted: dict[str, Ask] = {}
            for file in files:
                for module, version in await _graph(config.go, file, f"{served.url}/t-{token}", folder):
                    for kind in (Kind.info, Kind.mod, Kind.zip):
                        found = ask(module, version, kind)
                        wanted[found.name] = found
            async for step in _all(served.goproxy.proxy, list(wanted.values())):
                yield step


async def _graph(go: Path, file: Path, proxy: str, within: Path) -> list[tuple[str, str]]:
    """The modules that the go command would build with, by its own rules."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=within))
    try:
        await asyncio.to_thread(_copy, file, folder)
        # What it downloads here is thrown away; the proxy keeps and verifies it.
        settings = {
            "GOPROXY": proxy,
            "GOSUMDB": "off",
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOMODCACHE": str(folder / "modcache"),
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            "GOPRIVATE": "",
            "GONOPROXY": "",
        }
        command = [str(go), "list", "-m", "-f", _FORMAT, "all"]
        ended = await program.run(
            command, environment=environment() | settings, folder=folder, within_s=_GRAPH_WITHIN_S
        )
    except TimeoutError as error:
        raise Unavailable(f"{file}: the go command made no graph of it in {_GRAPH_WITHIN_S:g} s") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    if ended.status != 0:
        # The address of this run's own proxy, with its token, says nothing to anybody.
        why = ended.errors.decode(errors="replace").replace(f"{proxy}/", "").strip()
        raise InvalidInput(f"{file}: {why[:600]}", field="go.mod")
    pairs = (line.split(" ") for line in ended.output.decode().splitlines())
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[1]]  # noqa: PLR2004 - a pair


def _copy(file: Path, folder: Path) -> None:
    sums = file.with_name("go.sum")
    try:
        (folder / "go.mod").write_bytes(file.read_bytes())
        if sums.exists():
            (folder / "go.sum").write_bytes(sums.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{error.filename} cannot be read: {_why(error, 'read it')}", field="go.mod") from error


async def _all(proxy: Proxy, wanted: list[Ask]) -> AsyncIterator[Step]:
    turn = asyncio.Semaphore(_AT_ONCE)
    finished: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def one(item: Ask) -> None:
        async with turn:
            try:
                await proxy.ensure(item)
            except MooringError as error:
                await finished.put((item.label, error.detail))
            else:
                await finished.put((item.label, ""))

    async with Tasks("warm") as tasks:
        for item in wanted:
            _ = tasks.spawn(item.name, one(item))
        for done in range(1, len(wanted) + 1):
            label, problem = await finished.get()
            yield Step(done, len(wanted), label, problem)


@dataclass(frozen=True, slots=True)
class Exported:
    """How many files were written, and how many records of the checksum database go without all of their proof."""

    files: int
    unproved: int


async def export(config: Config, to: Path, patterns: tuple[str, ...]) -> Exported:
    """Write what is kept, or the modules that a pattern covers, into a tar file, which is there whole or as it was.

    Raises:
        InvalidInput: the file cannot be written.
        NotFound: no pattern covers anything that is kept.
    """
    async with build(config) as goproxy:
        unproved = await goproxy.database.complete(goproxy.store) if goproxy.database else 0
        try:
            async with replacing(to) as file:
                count = await _write(goproxy.store, file, patterns)
        except OSError as error:
            raise _unwritable(to, error) from error
    return Exported(count, unproved)


def _unwritable(to: Path, error: OSError) -> InvalidInput:
    why = _why(error, f"write in {to.resolve().parent}")
    return InvalidInput(f"{to} cannot be written: {why}", field="to")


def _why(error: OSError, what: str) -> str:
    """What the system says; where it denies `what`, to whom: what root types is done as the user of the store."""
    if error.errno != errno.EACCES:
        return error.strerror or str(error)
    user = os.geteuid()
    with suppress(KeyError):
        return f"the user {pwd.getpwuid(user).pw_name} may not {what}"
    return f"the user {user} may not {what}"


async def _write(store: FullStore, to: IO[bytes], patterns: tuple[str, ...]) -> int:
    """Into an empty file; how many files it has."""
    count = modules = 0
    with tarfile.open(fileobj=to, mode="w") as archive:
        async for entry in store.entries():
            blob = await store.open(entry.name) if _exported(entry.name, patterns) else None
            if blob is not None:
                await _add(archive, entry.name, blob)
                count += 1
                modules += _module_file(entry.name) is not None
    if patterns and not modules:
        raise NotFound(f"nothing that is kept is covered by {', '.join(patterns)}")
    return count


async def _add(archive: tarfile.TarFile, name: str, blob: Blob) -> None:
    member = tarfile.TarInfo(_DOWNLOAD + name)
    member.size, member.mtime, member.mode = blob.size, int(blob.modified), 0o644
    try:
        with await blob.file() as content:
            await asyncio.to_thread(archive.addfile, member, content)
    finally:
        blob.close()


def _exported(name: str, patterns: tuple[str, ...]) -> bool:
    if name.startswith(_SUMDB):
        # Without the proofs a closed network could not verify anything.
        return True
    found = _module_file(name.removesuffix("hash"))
    return found is not None and (not patterns or matches_any(patterns, found.module))


def _module_file(name: str) -> Ask | None:
    try:
        found = parse(b"/" + os.fsencode(name))
    except NotFound:
        return None
    return found if isinstance(found, Ask) else None


async def import_(config: Config, source: Path) -> AsyncIterator[Step]:
    """Take over an export, or a folder such as a module cache's `cache/download`; everything is verified as if fetched.

    Raises:
        InvalidInput: it is neither, or holds no module.
        NoSpace: the store's disk does not take what is in it.
        Unavailable: it takes nothing.
    """
    await swept(config.root)
    async with _folder(source, config.root) as folder:
        files = _files(folder)
        # Lists and branches of elsewhere say nothing about what is here: lists are made of the versions that are kept.
        wanted = [found for name in files if (found := _module_file(name)) is not None and found.immutable]
        if not wanted:
            raise InvalidInput(f"{source} holds no module: give an export, or what GOMODCACHE names", field="from")
        async with build(config, only=Folder(folder)) as goproxy:
            async for step in _all(goproxy.proxy, wanted):
                yield step


def _files(folder: Path) -> list[str]:
    """The files below it. Raises InvalidInput for a folder that is closed: its modules would be left out in silence."""

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from error

    walked = os.walk(folder, onerror=refuse)
    return sorted(str((Path(at) / name).relative_to(folder)) for at, _, names in walked for name in names)


@asynccontextmanager
async def _folder(source: Path, root: Path) -> AsyncIterator[Path]:
    try:
        tree = _tree(source)
    except OSError as error:
        raise _unreadable(source, error) from error
    if tree is not None:
        yield tree
        return
    # Beside the store: a small /tmp could not take an export of hundreds of gigabytes.
    with workplace(root) as folder:
        try:
            await _extracted(source, folder / _DOWNLOAD)
        except (tarfile.ReadError, EOFError, lzma.LZMAError, zlib.error) as error:
            # Python's own text names each way of compressing in which it is none.
            raise InvalidInput(f"{source} is no export of a module store, or not all of one", field="from") from error
        except tarfile.TarError as error:
            raise InvalidInput(f"{source} cannot be read: {error}", field="from") from error
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(f"{root} has no room for what {source} holds: {error.strerror}") from error
            raise _unreadable(source, error) from error
        yield folder / _DOWNLOAD


def _unreadable(source: Path, error: OSError) -> InvalidInput:
    return InvalidInput(f"{source} cannot be read: {_why(error, 'read it')}", field="from")


def _tree(source: Path) -> Path | None:
    """The modules of a folder; None for an archive."""
    below = source / _DOWNLOAD
    if below.is_dir():
        return below
    return source if source.is_dir() else None


async def _extracted(source: Path, to: Path) -> None:
    """`_extract`, which ends where whoever waits for it does."""
    ended = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(None, _extract, source, to, ended.is_set)
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        ended.set()
        # What it wrote after its folder was removed would stay there.
        await asyncio.wait([work])
        # Asked for, else it is told as one that nobody knows of.
        work.exception()
        raise


class _Ended(Exception):
    """Whoever wanted the content is gone; no OSError, which each way of compressing takes for another one's archive."""


class _Watched(io.FileIO):
    """A file that is read until `ended`: also of one large member, or of what only leads to the next one."""

    def __init__(self, file: Path, ended: Callable[[], bool]) -> None:
        super().__init__(file)
        self._ended = ended

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        if self._ended():
            raise _Ended
        return super().readinto(buffer)


def _extract(source: Path, to: Path, ended: Callable[[], bool]) -> None:
    to.mkdir(parents=True)
    with io.BufferedReader(_Watched(source, ended)) as packed, tarfile.open(fileobj=packed) as archive:
        for member in archive:
            name = member.name.removeprefix(_DOWNLOAD)
            content = archive.extractfile(member) if member.isreg() and _importable(name) else None
            if content is not None:
                target = to / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)


def _importable(name: str) -> bool:
    """Only names of the protocol are made into files: others could lead anywhere."""
    try:
        found = parse(b"/" + os.fsencode(name.removesuffix("hash")))
    except NotFound:
        return False
    return isinstance(found, Ask) or ".." not in found.rest.split("/")
