"""Archives of a module store: what is there before a refused export, and what is no whole archive."""

import asyncio
import fcntl
import gzip
import os
import signal
import sys
import tarfile
from pathlib import Path

import pytest

from mooring.control.tasks import Tasks
from mooring.errors import InvalidInput, NotFound
from mooring.goproxy.config import Config
from mooring.server.goproxy_jobs import export, import_
from mooring.server.replacing import replacing
from support.following import until
from support.waiting import WITHIN_S

NAME = "example.com/x/@v/v1.0.0"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A store with a module, and no way out."""
    kept = tmp_path / "store/cache/download" / NAME
    kept.parent.mkdir(parents=True)
    kept.with_name("v1.0.0.info").write_bytes(b'{"Version":"v1.0.0"}')
    kept.with_name("v1.0.0.zip").write_bytes(os.urandom(300_000))
    return Config(tmp_path / "store", upstream="off", sumdb="off")


async def test_an_export_that_is_refused_leaves_what_was_there(tmp_path: Path, config: Config) -> None:
    """The earlier file is whole, and nothing lies beside it; one that succeeds takes its place, by a link as well."""
    folder = tmp_path / "exports"
    folder.mkdir()
    to = folder / "modules.tar"
    to.write_bytes(b"earlier")
    with pytest.raises(NotFound, match=r"covered by nothing\.example"):
        await export(config, to, ("nothing.example",))
    assert to.read_bytes() == b"earlier"
    link = tmp_path / "newest"
    link.symlink_to(to)
    done = await export(config, link, ("example.com",))
    assert link.is_symlink()
    assert list(folder.iterdir()) == [to]
    with tarfile.open(to) as archive:
        assert len(archive.getnames()) == done.files == 2


async def test_an_export_takes_the_place_of_files_only(tmp_path: Path, config: Config) -> None:
    """A pipe, a device or a folder of that name stays."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for to in (pipe, tmp_path):
        with pytest.raises(InvalidInput, match="is there, and no file"):
            await export(config, to, ())
    assert pipe.is_fifo()


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from mooring.server.replacing import replacing

async def run():
    async with replacing(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run())
"""


async def test_what_a_killed_export_left_goes_with_the_next_one(tmp_path: Path, config: Config) -> None:
    """Only what it left for the same file: not what another one has in hand, nor what is left for another file."""
    folder = tmp_path / "exports"
    folder.mkdir()
    # As long as a file's name can be.
    to, other = folder / ("m" * 251 + ".tar"), folder / "other.tar"
    for file in (to, other):
        killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _KILLED, file)
        assert await killed.wait() == -signal.SIGKILL
    hers = folder / ".modules.tar.part"
    hers.write_bytes(b"a person's")
    assert len(list(folder.iterdir())) == 3
    async with replacing(to) as busy:
        busy.write(b"the last one")
        await export(config, to, ())
        assert tarfile.is_tarfile(to)
        assert len(list(folder.iterdir())) == 4
    assert to.read_bytes() == b"the last one"
    await export(config, other, ())
    assert sorted(folder.iterdir()) == [hers, to, other]


@pytest.mark.parametrize("compressed", ["", ":gz", ":xz", ":bz2"])
async def test_an_archive_that_was_cut_off_is_told(tmp_path: Path, config: Config, compressed: str) -> None:
    """However it is compressed, half an export is named as that."""
    source = tmp_path / "modules.tar"
    with tarfile.open(source, f"w{compressed}") as archive:
        archive.add(tmp_path / "store/cache", "cache")
    source.write_bytes(source.read_bytes()[:150_000])
    with pytest.raises(InvalidInput, match="is no export of a module store, or not all of one"):
        _ = [step async for step in import_(config, source)]


async def test_an_import_that_is_interrupted_while_it_unpacks_ends_at_once(tmp_path: Path, config: Config) -> None:
    """Of an archive that would take minutes nothing stays in the store, and nobody writes there afterwards."""
    source = tmp_path / "modules.tar.gz"
    _endless(source, (config.root / "cache/download" / f"{NAME}.zip").read_bytes())
    inside = tmp_path / "inside"

    async def run() -> None:
        _ = [step async for step in import_(Config(inside, upstream="off", sumdb="off"), source)]

    async with Tasks("test") as tasks:
        importing = tasks.spawn("import", run())
        await until(lambda: list(inside.glob(f".mooring-job-*/cache/download/{NAME}.zip")))
        importing.cancel()
        async with asyncio.timeout(WITHIN_S):
            await asyncio.wait([importing])
        assert importing.cancelled()
    assert list(inside.iterdir()) == []


def _endless(to: Path, module: bytes) -> None:
    """An archive of a module, and then 64 GiB of zeros."""
    first, zeros = tarfile.TarInfo(f"cache/download/{NAME}.zip"), tarfile.TarInfo("zeros")
    first.size, zeros.size = len(module), 64 << 30
    begin = first.tobuf() + module + bytes(-len(module) % tarfile.BLOCKSIZE) + zeros.tobuf()
    # One after the other, what was compressed apart is one whole.
    to.write_bytes(gzip.compress(begin) + gzip.compress(bytes(64 << 20)) * 1024)


async def test_what_killed_imports_left_goes(tmp_path: Path, config: Config) -> None:
    """The next import removes it, but nothing that another one has in hand, or is about to, nor what is a person's."""
    source = tmp_path / "modules.tar"
    await export(config, source, ())
    for name in (".mooring-import-busy", ".mooring-import-left", ".mooring-import-young", "import-2026-11"):
        folder = config.root / name
        (folder / "cache").mkdir(parents=True)
        if not name.endswith("young"):
            os.utime(folder, (1, 1))
    busy = os.open(config.root / ".mooring-import-busy", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(busy, fcntl.LOCK_SH)
    assert [step async for step in import_(config, source)]
    os.close(busy)
    found = sorted(path.name for path in config.root.glob("*import-*"))
    assert found == [".mooring-import-busy", ".mooring-import-young", "import-2026-11"]
