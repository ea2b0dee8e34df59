"""The store on S3-compatible storage, for replicas that share one. An object is visible when all of it is there.

Large files are read in parts, each of which must still be of the object that was opened: one that was replaced while
it was read is cut off, which for files that never change is as good as never.
"""

import asyncio
import datetime as dt
import hashlib
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

import httpx2

from mooring.errors import InvalidInput, Misconfigured, Unavailable
from mooring.goproxy.ports import Entry
from mooring.goproxy.sigv4 import Key, Request, escaped, headers, query_string

_PART = 2**20
_EMPTY = hashlib.sha256(b"").hexdigest()
_USES = 100_000
_IN_MEMORY = 8 * 2**20
_BELIEVED_S = 15.0
"""A storage that answered is believed to answer again for so long."""
_BUSY = (500, 503)
"""What S3 answers for a moment under load; its documentation says to ask again."""
_PAUSE_S = 0.2
_REMEMBERED_S = 60.0
"""One that refused to save a file is said to refuse for so long, unless it saves another one: reading tells nothing."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where: `https://HOST/BUCKET/PREFIX`, and with which credentials."""

    url: str
    credentials: Path
    """A file with `aws_access_key_id = …` and `aws_secret_access_key = …`."""
    region: str = "us-east-1"

    def key(self) -> Key:
        """The credentials.

        Raises:
            Misconfigured: the file cannot be read, or has them not.
        """
        try:
            lines = self.credentials.read_text().splitlines()
        except OSError as error:
            raise Misconfigured(f"{self.credentials}: {error.strerror}", field="s3") from error
        found = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
        try:
            return Key(found["aws_access_key_id"], found["aws_secret_access_key"], self.region)
        except KeyError as error:
            raise Misconfigured(f"{self.credentials} has no {error.args[0]}", field="s3") from error


@dataclass(slots=True)
class S3Blob:
    """An open object: its first part is here already."""

    store: "S3Store"
    name: str
    size: int
    modified: float
    etag: str
    part: bytes
    at: int = 0

    async def read(self, start: int, length: int) -> bytes:
        if not self.at <= start < self.at + len(self.part):
            if start >= self.size:
                return b""
            self.part, self.at = await self.store.read_part(self, start), start
        return self.part[start - self.at : start - self.at + length]

    async def file(self) -> IO[bytes]:
        out: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - whoever asked closes it
        at = 0
        while chunk := await self.read(at, _PART):
            await asyncio.to_thread(out.write, chunk)
            at += len(chunk)
        out.seek(0)
        return out

    @property
    def descriptor(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is held."""


def _address(text: str) -> httpx2.URL:
    try:
        return httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise InvalidInput(f"must be https://HOST/BUCKET: {error}", field="s3") from error


class S3Store:
    """A `FullStore` in a bucket. What was read is remembered in this process only, for the eviction."""

    def __init__(self, bucket: Bucket, http: httpx2.AsyncClient) -> None:
        url = _address(bucket.url)
        self._bucket, _, prefix = url.path.strip("/").partition("/")
        if url.scheme not in ("http", "https") or not self._bucket:
            raise InvalidInput("must be https://HOST/BUCKET, with a prefix after it if wanted", field="s3")
        self._prefix = f"{prefix}/" if prefix else ""
        self._base = f"{url.scheme}://{url.netloc.decode()}"
        self._host = url.netloc.decode()
        self._key = bucket.key()
        self._http = http
        self._used: OrderedDict[str, float] = OrderedDict()
        self._answered_at = float("-inf")
        self._refused: tuple[float, str] | None = None

    async def healthy(self) -> None:
        now = time.monotonic()
        if self._refused is not None and now - self._refused[0] < _REMEMBERED_S:
            raise Unavailable(f"nothing can be kept: {self._refused[1]}")
        # Asked every two seconds for ever, and each question to a storage may cost money.
        if now - self._answered_at > _BELIEVED_S:
            await self._ask("GET", "", {"list-type": "2", "max-keys": "1"})

    async def open(self, name: str) -> S3Blob | None:
        answer = await self._ask("GET", name, extra={"range": f"bytes=0-{_PART - 1}"})
        if answer.status_code == 404:  # noqa: PLR2004 - HTTP's number
            return None
        self._used[name] = time.time()
        self._used.move_to_end(name)
        if len(self._used) > _USES:
            self._used.popitem(last=False)
        # A range of an empty object cannot be satisfied.
        part = b"" if answer.status_code == 416 else answer.content  # noqa: PLR2004 - HTTP's number
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        modified = parsedate_to_datetime(answer.headers["last-modified"]).timestamp() if part else time.time()
        size = int(total) if part and total.isdecimal() else len(part)
        return S3Blob(self, name, size, modified, answer.headers.get("etag", ""), part)

    async def read_part(self, blob: S3Blob, start: int) -> bytes:
        """A part of an object that is still the one that was opened."""
        wanted = {"range": f"bytes={start}-{start + _PART - 1}", "if-match": blob.etag}
        answer = await self._ask("GET", blob.name, extra=wanted)
        if answer.status_code != 206:  # noqa: PLR2004 - HTTP's number
            raise Unavailable(f"{blob.name} was replaced or removed while it was read")
        return answer.content

    async def put(self, name: str, data: bytes) -> None:
        await self._save(name, data, {}, hashlib.sha256(data).hexdigest())

    async def adopt(self, name: str, file: Path) -> None:
        with await asyncio.to_thread(file.open, "rb") as opened:
            digest = await asyncio.to_thread(hashlib.file_digest, opened, "sha256")
            size = opened.tell()
            opened.seek(0)
            length = {"content-length": str(size)}
            await self._save(name, _parts(opened), length, digest.hexdigest())
        await asyncio.to_thread(file.unlink)

    async def _save(
        self, name: str, body: bytes | AsyncIterator[bytes], extra: Mapping[str, str], payload: str
    ) -> None:
        try:
            _ = await self._ask("PUT", name, extra=extra, body=body, payload=payload)
        except Unavailable as error:
            self._refused = time.monotonic(), error.detail
            raise
        self._refused = None

    async def remove(self, name: str) -> None:
        _ = await self._ask("DELETE", name)

    async def entries(self, prefix: str = "") -> AsyncIterator[Entry]:
        query = {"list-type": "2", "prefix": self._prefix + prefix}
        while True:
            answer = await self._ask("GET", "", query)
            tree = _xml(answer.content)
            for item in tree.findall("{*}Contents"):
                name = (item.findtext("{*}Key") or "").removeprefix(self._prefix)
                modified = dt.datetime.fromisoformat(item.findtext("{*}LastModified") or "").timestamp()
                used = max(modified, self._used.get(name, 0.0))
                yield Entry(name, int(item.findtext("{*}Size") or 0), modified, used)
            token = tree.findtext("{*}NextContinuationToken")
            if not token:
                return
            query["continuation-token"] = token

    async def _ask(
        self,
        method: str,
        name: str,
        query: Mapping[str, str] | None = None,
        *,
        extra: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        payload: str = _EMPTY,
    ) -> httpx2.Response:
        """An answer that is one; what says that an object is absent or another one is the caller's business."""
        path = escaped(f"/{self._bucket}" + (f"/{self._prefix}{name}" if name else ""))
        request = Request(method, self._host, path, query or {}, payload)
        signed = headers(request, self._key, dt.datetime.now(dt.UTC))
        url = self._base + path + (f"?{query_string(query)}" if query else "")
        asked = self._http.build_request(method, url, headers={**signed, **(extra or {})}, content=body)
        try:
            answer = await self._read(asked) if method == "GET" else await self._http.send(asked)
        except httpx2.HTTPError as error:
            self._answered_at = float("-inf")
            raise Unavailable(f"the storage {self._host} cannot be reached: {error}") from error
        if answer.is_success or (name and method != "PUT" and _about_the_object(answer)):
            self._answered_at = time.monotonic()
            return answer
        self._answered_at = float("-inf")
        raise Unavailable(f"the storage {self._host} answered {answer.status_code}: {answer.text[:200]}")

    async def _read(self, asked: httpx2.Request) -> httpx2.Response:
        """What can be asked for twice is, once: the storage's bad moment would fail a build."""
        try:
            answer = await self._http.send(asked)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
            # It closed an idle connection as that was used again.
            return await self._http.send(asked)
        if answer.status_code not in _BUSY:
            return answer
        await asyncio.sleep(_PAUSE_S)
        return await self._http.send(asked)


def _about_the_object(answer: httpx2.Response) -> bool:
    # A bucket that is gone answers 404 too: taken for absence, everything kept would seem to have been evicted.
    return answer.status_code in (404, 412, 416) and b"<Code>NoSuchBucket<" not in answer.content


async def _parts(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _PART):
        yield chunk


def _xml(content: bytes) -> ET.Element:
    # A document type could name entities that grow without end; S3 never sends one.
    if b"<!DOCTYPE" in content:
        raise Unavailable("the storage sends a list that is none")
    try:
        return ET.fromstring(content)  # noqa: S314 - see above
    except ET.ParseError as error:
        raise Unavailable("the storage sends a list that is none") from error
