"""A module proxy upstream, over HTTP. Foreign errors are translated here."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote
from urllib.request import getproxies

import aiohttp
import httpx2
from yarl import URL

from mooring.errors import InvalidInput, MooringError, NotFound, Unavailable
from mooring.goproxy.dirhash import MAX_MOD, MAX_ZIP
from mooring.goproxy.faults import BadUpstream, UpstreamRefused
from mooring.goproxy.names import Ask, Kind
from mooring.goproxy.ports import Download

MAX_REDIRECTS = 10
_ABSENT = (404, 410)
_OK = 200
_REASON_BYTES = 600
_MAX_SMALL = 2**20
"""Bytes of a list or an info. Known lists have up to 50 KB, and sorting 10 MB would hold everybody up for a minute."""
_TOTAL_S = 300.0
_CHUNK = 128 * 1024
CONNECT_S = 15.0
_SLOWEST = 1000
"""Bytes a second, over as long as an upstream may send nothing; git's limit here is the same."""
_IDLE_S = 30.0
"""An idle connection is kept for so long: the go command pauses between the go.mod files and the zips."""
_BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
# As the go command writes paths; a branch's name may have a #, behind which nothing would be sent, and a %.
_SAFE = "/:@$&+,=~"


def client(timeout_s: float, connections: int = 64) -> aiohttp.ClientSession:
    """A client for all upstreams: kept-alive connections. Make it where it is used, in an event loop.

    Not httpx2, which needs four times the processor time for a small file, and a cold module is half a dozen of them.
    """
    return aiohttp.ClientSession(
        # The same authorities are trusted as everywhere else.
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_IDLE_S, ssl=httpx2.create_ssl_context()),
        # Who waits for a free connection waits for others' downloads, which may take long and are no fault.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(timeout_s, CONNECT_S), sock_read=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "mooring-goproxy"},
        read_bufsize=_CHUNK,
        # With it every request asks for its proxy in a thread.
        trust_env=bool(getproxies()),
    )


class _Pace:
    """Whether a download has become too slow: one byte a minute would keep everybody waiting for ever."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._began = time.monotonic()
        self._before = 0

    def too_slow(self, total: int) -> bool:
        """Whether the last whole window brought less than it must."""
        now = time.monotonic()
        if now - self._began < self._window_s:
            return False
        least = self._before + _SLOWEST * (now - self._began)
        self._began, self._before = now, total
        return total < least


def _reason(body: bytes) -> str:
    """What a person may read: as with the go command nothing, where there are control characters."""
    text = body[:_REASON_BYTES].decode(errors="ignore").strip()
    return text if all(c.isprintable() or c in "\n\r\t" for c in text) else ""


class Upstream:
    """A `Source` and a `Remote` at `base`, a URL without a slash at its end."""

    def __init__(self, base: str, http: aiohttp.ClientSession) -> None:
        """Raises InvalidInput for a `base` that is no URL."""
        self.base = base.rstrip("/")
        self._http = http
        try:
            self.name = str(URL(self.base, encoded=True).with_user(None))
            """The address for people: without credentials."""
        except ValueError as error:
            raise InvalidInput("must be https://HOST, with a path if wanted", field="upstream") from error

    def public_address(self, ask: Ask) -> str:
        """Where a client finds a file itself; our credentials are not in it."""
        return f"{self.name.rstrip('/')}/{quote(ask.name, _SAFE)}"

    async def small(self, ask: Ask) -> bytes:
        return await self.get(ask.name, MAX_MOD if ask.kind is Kind.mod else _MAX_SMALL)

    async def get(self, path: str, limit: int = 4 * MAX_MOD) -> bytes:
        """A file of at most `limit` bytes. Raises as `Source`."""
        try:
            async with asyncio.timeout(_TOTAL_S):
                return await self._whole(path, limit)
        except aiohttp.ClientError as error:
            raise self._translated(error) from error
        except TimeoutError as error:
            raise Unavailable(f"{self.name} did not answer within {_TOTAL_S:g} s") from error

    async def _whole(self, path: str, limit: int) -> bytes:
        async with self._answer(path) as response:
            await self._check(response)
            return await self._read(response, limit)

    @asynccontextmanager
    async def _answer(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The beginning of an answer. Asked for a second time when the connection broke before it came.

        An upstream may close an idle connection at the moment in which it is used again: no fault of anybody's, and
        one that would fail a build.
        """
        url = URL(f"{self.base}/{quote(path, _SAFE)}", encoded=True)
        # It counts the last answer, too, that is a redirect.
        most = MAX_REDIRECTS + 1
        try:
            response = await self._http.get(url, headers=headers, max_redirects=most)
        except aiohttp.ClientConnectorError:
            raise
        except _BROKEN:
            response = await self._http.get(url, headers=headers, max_redirects=most)
        try:
            yield response
        finally:
            response.close()

    @asynccontextmanager
    async def zip(self, ask: Ask) -> AsyncIterator[Download]:
        # Compressed once more it would only cost time, and its length would be unknown.
        headers = {"Accept-Encoding": "identity"}
        try:
            async with self._answer(ask.name, headers) as response:
                await self._check(response)
                length = response.headers.get("content-length", "")
                size = int(length) if length.isdecimal() and "content-encoding" not in response.headers else None
                if size is not None and size > MAX_ZIP:
                    raise BadUpstream(f"{self.name} offers a zip of {size} bytes; at most {MAX_ZIP} are allowed")
                yield Download(size, self._chunks(response))
        except aiohttp.ClientError as error:
            raise self._translated(error) from error

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        total = 0
        pace = _Pace(self._http.timeout.sock_read or _TOTAL_S)
        try:
            async for chunk in response.content.iter_any():
                total += len(chunk)
                if total > MAX_ZIP:
                    raise BadUpstream(f"{self.name} sends a zip of more than {MAX_ZIP} bytes")
                if pace.too_slow(total):
                    raise Unavailable(f"{self.name} sends less than {_SLOWEST} bytes a second")
                yield chunk
        except aiohttp.ClientError as error:
            raise self._translated(error) from error

    async def _read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise BadUpstream(f"{self.name} sends more than {limit} bytes")
        return bytes(body)

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.url.scheme == "http" and self.base.startswith("https:"):
            raise BadUpstream(f"{self.name} redirects from https to http")
        if response.status == _OK:
            return
        body = await self._read(response, MAX_MOD)
        is_text = response.headers.get("content-type", "text/plain").startswith("text/plain")
        raise self._refusal(response.status, _reason(body) if is_text else "")

    def _refusal(self, status: int, reason: str) -> MooringError:
        text = f"{self.name} answered {status}" + (f": {reason}" if reason else "")
        if status in _ABSENT:
            return NotFound(reason or "not found")
        if status in (401, 403):
            return UpstreamRefused(text)
        return Unavailable(text)

    def _translated(self, error: Exception) -> Unavailable:
        if isinstance(error, aiohttp.TooManyRedirects):
            return BadUpstream(f"{self.name} redirects more than {MAX_REDIRECTS} times")
        if isinstance(error, aiohttp.ClientResponseError):
            # Its text holds what came instead, kilobytes of it.
            return BadUpstream(f"{self.name} sends something that is no HTTP")
        kind = "did not answer in time" if isinstance(error, TimeoutError) else "cannot be reached"
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
            kind = "broke off its answer"
        return Unavailable(f"{self.name} {kind}" + (f": {error}" if str(error) else ""))
