"""The `h1:` hashes of go.sum (https://go.dev/ref/mod#go-sum-files), and what a module's zip may contain.

`h1:` is the SHA-256 of one line a file, sorted by name: the file's SHA-256 in hex, two spaces, its name, a newline.
"""

import base64
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from mooring.goproxy.faults import BadZip

MAX_ZIP = 500 * 2**20
MAX_MOD = 16 * 2**20
MAX_DIRECTORY = 32 * 2**20
"""Bytes of a zip's list of files, some 300,000: each costs a kilobyte of memory and 30 µs. Go has no such limit."""
_CHUNK = 256 * 1024
_SMALL = 4 * 2**20
"""Bytes; at most as many zips as there are threads to hash them are in memory at a time."""
_IDENT = re.compile(rb"\$Id:[^$\n]*\$")
_SAYS_UTF8 = 0x800
_NOWHERE = 2**32
"""Bytes; beyond every zip."""
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How the go command can read a file."""


def of_mod(content: bytes) -> str:
    """The hash of a go.mod, which go.sum names `VERSION/go.mod`."""
    return summary([("go.mod", hashlib.sha256(content).hexdigest())])


def summary(files: Iterable[tuple[str, str]]) -> str:
    """The hash of files given by name and SHA-256 in hex."""
    # The go command sorts by bytes; a plain sort of text differs for names beyond the first 65,536 characters.
    lines = sorted((name.encode(errors="surrogateescape"), digest) for name, digest in files)
    total = hashlib.sha256()
    for name, digest in lines:
        total.update(digest.encode() + b"  " + name + b"\n")
    return "h1:" + base64.b64encode(total.digest()).decode()


def of_zip(path: Path | IO[bytes], prefix: str) -> str:
    """The hash of a module's zip, all of whose files must begin with `prefix` (`module@version/`). Blocking.

    Raises:
        BadZip: it is damaged, or breaks a limit or a rule about names.
    """
    with _archive(path) as archive:
        entries = archive.infolist()
        check_names([_name(entry) for entry in entries], prefix)
        check_size(sum(entry.file_size for entry in entries))
        return summary([(_name(entry), _digest(archive, entry)) for entry in entries])


@contextmanager
def _archive(path: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """A zip; damage that shows within the block is a BadZip, too."""
    try:
        with _opened(path) as file, zipfile.ZipFile(_Bounded(file)) as archive:
            for entry in archive.infolist():
                _check_readable(entry)
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
        raise BadZip(f"the zip is damaged: {error}") from error


def mod_of_zip(path: Path | IO[bytes], prefix: str) -> bytes | None:
    """The go.mod of a zip, None where it holds none; more than a `.mod` may have is cut off. Blocking.

    Raises:
        BadZip: it is damaged.
    """
    with _archive(path) as archive:
        name = f"{prefix}go.mod"
        if name not in archive.namelist():
            return None
        with archive.open(name) as mod:
            return mod.read(MAX_MOD + 1)


def same_mod(kept: bytes, in_zip: bytes | None) -> bool:
    """Whether a version's `.mod` is the go.mod of its zip.

    As it makes an archive git changes ends of lines and fills in `$Id$` where attributes say so; the go command
    overrules only those of export (`ensureGitAttributes`).

    For a module without one a `.mod` is made up that names the path and no more (https://go.dev/ref/mod#non-module-compat).
    """
    if in_zip is not None:
        return _as_committed(kept) == _as_committed(in_zip)
    words = [line.split() for line in kept.splitlines() if line.strip()]
    return len(words) == 1 and words[0][0] == b"module"


def _as_committed(go_mod: bytes) -> bytes:
    return _IDENT.sub(b"$Id$", go_mod.replace(b"\r\n", b"\n"))


def _opened(path: Path | IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    """A small zip as bytes: each of its files would be two seeks and a read, during which other threads take turns."""
    if not isinstance(path, Path):
        return nullcontext(path)
    return io.BytesIO(path.read_bytes()) if path.stat().st_size <= _SMALL else path.open("rb")


class _Bounded:
    """A file whose directory is not read when it is too long; `zipfile` asks for it in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """As the file's. Raises BadZip for more than a directory may have."""
        if size > MAX_DIRECTORY:
            raise BadZip(f"the zip's list of files has more than {MAX_DIRECTORY} bytes")
        return self._file.read(size)


def _check_readable(entry: zipfile.ZipInfo) -> None:
    """Raise BadZip for what ends in an error of the unpacker's own, or of the file system's."""
    if entry.compress_type not in _PACKED:
        raise BadZip("the zip holds a file that is packed in a way that Go cannot read")
    if not 0 <= entry.header_offset < _NOWHERE:
        raise BadZip("the zip is damaged: its list of files leads out of it")


def _name(entry: zipfile.ZipInfo) -> str:
    """The name as its bytes are: zips made long ago have UTF-8 in them without saying so."""
    if entry.orig_filename.isascii():
        return entry.orig_filename
    raw = entry.orig_filename.encode("utf-8" if entry.flag_bits & _SAYS_UTF8 else "cp437")
    return raw.decode(errors="surrogateescape")


def _digest(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    digest, size = hashlib.sha256(), 0
    with archive.open(entry) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            # A header may lie about the size: what comes out counts.
            check_size(size)
            digest.update(chunk)
    return digest.hexdigest()


def check_size(size: int) -> None:
    """Raise BadZip for more than a module may have, unpacked."""
    if size > MAX_ZIP:
        raise BadZip(f"the zip unpacks to more than {MAX_ZIP} bytes")


def check_names(names: list[str], prefix: str) -> None:
    """Raise BadZip for a name outside `prefix`, one that climbs, or two that differ in case only."""
    seen: set[str] = set()
    for name in names:
        inside = name.removeprefix(prefix)
        parts = inside.split("/")
        if not name.startswith(prefix) or "\n" in name or "\\" in name or any(p in ("", ".", "..") for p in parts):
            raise BadZip(f"the zip holds {name[:200]!r}, which is no file below {prefix}")
        folded = name.casefold()
        if folded in seen:
            raise BadZip(f"the zip holds {name[:200]!r} twice, or in two cases")
        seen.add(folded)
