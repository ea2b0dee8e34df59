"""The port of 127.0.0.1 on which the gateway serves modules in plain, for the go commands of process workspaces."""

import asyncio

from mooring.gateway.config import Modules
from mooring.gateway.nginx import NginxSink
from mooring.gateway.supervise import Nginx
from mooring.goproxy.names import Kind
from support.modules import Front, short_home
from support.nginx import CONSOLE, Gateway, listening, settings

INFO = b'{"Version":"v1.0.0"}'
X = "/goproxy/example.com/x/@v/v1.0.0.info"


async def ask(port: int, target: str, host: str) -> bytes:
    """The whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_what_is_kept_leaves_it_without_a_role_and_nothing_else_does() -> None:
    """In plain beside a public listener with TLS: what is kept, and neither API nor page."""
    with short_home() as home, listening() as public, listening() as modules:
        port = modules.getsockname()[1]
        places = {"modules": Modules.of(home), "modules_socket": home.containers_socket, "modules_port": port}
        nginx = Nginx(settings(home.root, public.getsockname()[1], tls=True, **places), [public, modules])
        await nginx.start()
        sink = NginxSink(home.gateway_socket)
        try:
            front = Front(home, Gateway(nginx, sink, public.getsockname()[1], home, public, tls=True), CONSOLE)
            front.keep("example.com/x", "v1.0.0", Kind.info, INFO)
            front.clear(open_to_all=True)
            assert (await ask(port, X, f"127.0.0.1:{port}")).endswith(INFO)
            assert (await ask(port, X.replace("x/", "y/"), f"127.0.0.1:{port}")).startswith(b"HTTP/1.1 503")
            for target in ("/", "/api/v1/workspaces", "/.mooring/x", "/frames", "/goproxy"):
                for host in (CONSOLE, f"127.0.0.1:{port}"):
                    assert (await ask(port, target, host)).startswith(b"HTTP/1.1 404")
        finally:
            await sink.close()
            await nginx.stop()
