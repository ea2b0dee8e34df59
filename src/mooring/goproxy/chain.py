"""Several sources one after the other, by the rules of GOPROXY (https://go.dev/ref/mod#environment-variables).

After a `,` the next source is asked only when this one proved absence (404 or 410); after a `|` on any error.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx2

from mooring.errors import InvalidInput, MooringError, NotFound
from mooring.goproxy.names import Ask
from mooring.goproxy.ports import Download, Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Link:
    """A word of GOPROXY, and whether any error leads on to the next one."""

    word: str
    on_any_error: bool


def parse(text: str) -> list[Link]:
    """The links of a GOPROXY list up to `direct` or `off`, which end it.

    Raises:
        InvalidInput: an entry is neither a URL nor `direct` or `off`.
    """
    links: list[Link] = []
    for part in text.replace("|", "|\0").replace(",", ",\0").split("\0"):
        word = part.rstrip(",|").strip()
        if not word:
            continue
        if "://" not in word and word not in ("direct", "off"):
            if not any(c in word for c in ".:/"):
                raise InvalidInput(f"{word!r} must be a URL, direct or off", field="upstream")
            word = f"https://{word}"
        if "://" in word and word.partition("://")[0] not in ("http", "https", "file"):
            raise InvalidInput(f"{word!r} must begin with https://, http:// or file://", field="upstream")
        if "://" in word and not _is_url(word):
            raise InvalidInput(f"{word!r} must be a URL: https://proxy.example.com", field="upstream")
        links.append(Link(word, part.endswith("|")))
        if word in ("direct", "off"):
            break
    return links


def _is_url(word: str) -> bool:
    """Whether it can be asked: what cannot would fail at every request instead, without a word about the setting."""
    try:
        url = httpx2.URL(word)
    except httpx2.InvalidURL:
        return False
    return bool(url.host) if url.scheme != "file" else "\0" not in url.path


class Chain:
    """A `Source` over others."""

    def __init__(self, links: Sequence[tuple[Source, bool]]) -> None:
        self._links = links

    async def small(self, ask: Ask) -> bytes:
        return await self.each(lambda source: source.small(ask))

    @asynccontextmanager
    async def zip(self, ask: Ask) -> AsyncIterator[Download]:
        async with AsyncExitStack() as stack:

            async def enter(source: Source) -> Download:
                opened: AbstractAsyncContextManager[Download] = source.zip(ask)
                return await stack.enter_async_context(opened)

            yield await self.each(enter)

    async def each(self, call: Callable[[Source], Awaitable[T]]) -> T:
        """The first source's answer that counts; else the error that tells most."""
        best: MooringError | None = None
        for source, on_any_error in self._links:
            try:
                return await call(source)
            except MooringError as error:
                # Absence says less than why a source could not answer.
                if best is None or not isinstance(error, NotFound):
                    best = error
                if not isinstance(error, NotFound) and not on_any_error:
                    break
        raise best or NotFound("no upstream is configured for this module")
