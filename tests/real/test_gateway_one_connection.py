"""What one request is given stays its own: the next on its connection goes another way, and has none of it."""

import asyncio
import itertools
import re
from pathlib import Path
from typing import NamedTuple

from mooring.gateway.config import Modules
from mooring.model.routes import Access, Backend, BackendTls, Filters, Route
from mooring.settings import Home
from support.certificates import server_context
from support.grants import GRANTS, TOKEN, cookie
from support.nginx import ANSWER_S, Gateway, Reply, backend, gateway, parse

PUBLIC = Access(kind="public")
SCRIPT = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Accept": "*/*"}
OURS = cookie("a.test")


class Way(NamedTuple):
    """A request, the status of its answer, and what its backend is told of the person."""

    host: str
    path: str
    headers: dict[str, str]
    status: int = 200
    cookie: str | None = None
    authorization: str | None = None


WAYS = (
    Way("a.test", "/s", SCRIPT | {"Cookie": OURS}),
    Way("a.test", "/s", SCRIPT | {"Cookie": f"b=1; {OURS}"}, cookie="b=1"),
    Way("p.test", "/s", SCRIPT),
    Way("p.test", "/s", SCRIPT | {"Cookie": "c=1"}, cookie="c=1"),
    Way("a.test", "/s", {"Authorization": f"Bearer {TOKEN}", "Cookie": "d=1"}, cookie="d=1"),
    Way("a.test", "/s", {"Authorization": "Basic x", "Cookie": OURS}, authorization="Basic x"),
    Way("a.test", "/s", {"Authorization": "Basic x", "Cookie": "e=1"}, 401),
    Way("p.test", "/goproxy/x", {"Authorization": "Basic x", "Cookie": "f=1"}, 200, "f=1", "Basic x"),
    Way("p.test", "/goproxy/x", SCRIPT),
    Way("l.test", "/s", {"Authorization": "Basic x", "Cookie": "g=1"}, 200, "g=1", "Basic x"),
    Way("l.test", "/goproxy/x", SCRIPT),
    Way("r.test", "/s", SCRIPT | {"Authorization": "Basic x"}, authorization="Basic x"),
    Way("d.test", "/s", SCRIPT | {"Authorization": "Basic x", "Cookie": "h=1"}, 502),
    Way("d.test", "/s", SCRIPT | {"Cookie": "i=1"}, 502),
)


async def ask(edge: Gateway, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
    """One request on that connection."""
    lines = [f"GET {way.path} HTTP/1.1", f"Host: {edge.authority(way.host)}"]
    writer.write("\r\n".join([*lines, *(f"{n}: {v}" for n, v in way.headers.items()), "", ""]).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None
    return parse(head + await reader.readexactly(int(length[1])))


async def test_a_request_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    """Whichever two ways follow each other, each backend is told of its own request's cookies and credentials alone."""
    context, _ = server_context(tmp_path, "backend.test")
    modules = Modules.of(Home(tmp_path / "g"))
    async with (
        gateway(tmp_path / "g", modules=modules, workers=1) as edge,
        backend() as running,
        backend(tls=context) as secure,
    ):
        plain = (Backend(address=running.address),)
        tls = Backend(
            address=secure.address, protocol="https", tls=BackendTls(server_name="backend.test", verify=False)
        )
        await edge.publish(
            Route(name="a", host="a.test", access=Access(), backends=plain),
            Route(name="p", host="p.test", access=PUBLIC, backends=plain),
            Route(name="l", host="l.test", access=PUBLIC, backends=(tls,)),
            Route(name="r", host="r.test", access=PUBLIC, backends=plain, filters=Filters(rewrite_prefix="/moved")),
            Route(name="d", host="d.test", access=PUBLIC, backends=(Backend(unix=str(tmp_path / "nobody")),)),
            grants=GRANTS,
        )
        for first, second in itertools.product(WAYS, WAYS):
            reader, writer = await edge.connect()
            async with asyncio.timeout(ANSWER_S):
                for way in (first, second):
                    reply = await ask(edge, way, reader, writer)
                    told = dict(reply.json()["headers"]) if reply.status == 200 else {}  # type: ignore[call-overload]
                    assert (reply.status, told.get("cookie"), told.get("authorization")) == way[3:]
            writer.transport.abort()
