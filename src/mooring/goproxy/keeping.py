"""Small files in and out of a store, where an answer does not depend on whether it can be kept."""

import structlog

from mooring.errors import Unavailable
from mooring.goproxy.ports import Blob, Store

log = structlog.get_logger(__name__)


async def read(store: Store, name: str) -> bytes | None:
    """A whole file; None when there is none, or an empty one: the go command leaves those where it begins to write."""
    blob = await store.open(name)
    if blob is None:
        return None
    try:
        return await whole(blob) or None
    finally:
        blob.close()


async def whole(blob: Blob) -> bytes:
    """All of an open file: one of a bucket gives a part at a time."""
    data = bytearray()
    while part := await blob.read(len(data), blob.size - len(data)):
        data += part
    return bytes(data)


async def keep(store: Store, name: str, data: bytes) -> None:
    """Save a file if that is possible: a full disk must not refuse an answer that is right."""
    try:
        await store.put(name, data)
    except Unavailable as error:
        log.warning("not kept", file=name, error=error.detail)
